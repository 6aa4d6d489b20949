"""Settings of the producer side: a bad value names its setting, at start and not at the first flush."""

from pathlib import Path

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
        ("STREAMGAUGE_SPOOL_EVENTS", "1"),
    ],
)
def test_bad_value_names_its_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.read({name: value})


def test_values_are_read() -> None:
    read = Settings.read({"STREAMGAUGE_SERVICE": "Bürodienst", "STREAMGAUGE_SHARDS": "3", "STREAMGAUGE_DISABLED": "1"})
    assert (read.service, read.shards, read.disabled) == ("Bürodienst", 3, True)


def test_numbers_are_read_from_files_too(tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("3\n")
    assert Settings.read({"STREAMGAUGE_SHARDS_FILE": str(tmp_path / "shards")}).shards == 3
    (tmp_path / "shards").write_text("many\n")
    with pytest.raises(SettingsError, match="STREAMGAUGE_SHARDS: 'many' is not a number"):
        Settings.read({"STREAMGAUGE_SHARDS_FILE": str(tmp_path / "shards")})


@pytest.mark.parametrize("text", ["", "0", "false", "False", "no", "OFF"])
def test_what_says_no_is_off(text: str) -> None:
    read = Settings.read({"STREAMGAUGE_DISABLED": text, "STREAMGAUGE_CACHE_TTL_APPLY": text})
    assert not read.disabled
    assert not read.cache_ttl_apply


@pytest.mark.parametrize("text", ["1", "true", "True", "yes", "on"])
def test_what_says_yes_is_on(text: str) -> None:
    read = Settings.read({"STREAMGAUGE_DISABLED": text, "STREAMGAUGE_CACHE_TTL_APPLY": text})
    assert read.disabled
    assert read.cache_ttl_apply
