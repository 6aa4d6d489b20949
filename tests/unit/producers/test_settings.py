"""Settings of the producer side: a bad value names its setting, at start and not at the first flush."""

import pytest

from producers import Settings, SettingsError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STREAMGAUGE_SERVICE", ""),
        ("STREAMGAUGE_SERVICE", "\udcff"),
        ("STREAMGAUGE_SERVICE", "x" * 129),
        ("STREAMGAUGE_RELEASE", "x" * 129),
        ("STREAMGAUGE_FLUSH_INTERVAL_S", "soon"),
        ("STREAMGAUGE_FLUSH_INTERVAL_S", "0"),
        ("STREAMGAUGE_SHARDS", "-1"),
        ("STREAMGAUGE_EXIT_TIMEOUT_S", "nan"),
    ],
)
def test_bad_value_names_its_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.read({name: value})


def test_values_are_read() -> None:
    read = Settings.read({"STREAMGAUGE_SERVICE": "Bürodienst", "STREAMGAUGE_SHARDS": "3", "STREAMGAUGE_DISABLED": "1"})
    assert (read.service, read.shards, read.disabled) == ("Bürodienst", 3, True)
