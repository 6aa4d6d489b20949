"""The file of derived gauges: what it may say, and the ratio."""

from pathlib import Path

import pytest

from contract.metric import Kind
from database.settings import SettingsError
from exporter.derived import Sums, ratio, read_derived

GOOD = {
    "name": "'rate'",
    "help": "'h'",
    "numerator": "'a_total{x=\"1\"}'",
    "denominator": "'a_total'",
    "window_s": "60",
}


def write(folder: Path, **fields: str) -> Path:
    file = folder / "derived.toml"
    lines = [f"{name} = {value}\n" for name, value in (GOOD | fields).items() if value]
    file.write_text("[[derived]]\n" + "".join(lines))
    return file


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "'not a name'"),
        ("name", "'streamgauge_series'"),
        ("name", ""),
        ("help", "3"),
        ("numerator", "'a{b}'"),
        ("denominator", '\'a{y="1",x="2"}\''),
        ("window_s", "7"),
        ("window_s", "'60'"),
        ("window", "60"),
    ],
)
def test_bad_field_is_named(tmp_path: Path, field: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^STREAMGAUGE_DERIVED_FILE: derived 1: {field}: "):
        read_derived(write(tmp_path, **{field: value}))


def test_ratio_counts_what_the_selectors_take(tmp_path: Path) -> None:
    (one,) = read_derived(write(tmp_path))
    gathered = [Sums("a_total", Kind.COUNTER, f'a_total{{x="{x}"}}', 9, x) for x in (1.0, 2.0)]
    gathered[0] = gathered[0]._replace(key='a_total{x="1"}')
    assert ratio(one, gathered) == pytest.approx(1 / 3)
    assert ratio(one, []) is None


def test_shipped_file_is_valid() -> None:
    path = Path(__file__).parents[3] / "producers" / "reference" / "derived.toml"
    assert {one.name for one in read_derived(path)} == {
        "jorge_seller_bot_qualification_rate",
        "intent_decoder_accuracy",
    }
