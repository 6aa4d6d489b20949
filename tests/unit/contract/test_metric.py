"""Declarations of metrics: what cannot be written into a batch is refused where it is declared."""

import pytest

from contract.metric import Kind, MetricDef, check_metric
from contract.series import SeriesError


def declare(**fields: object) -> MetricDef:
    return check_metric(MetricDef(**({"name": "requests_total", "kind": Kind.COUNTER, "help": "Requests."} | fields)))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "x" * 5000])
def test_help_that_no_batch_could_carry_is_refused(text: str) -> None:
    with pytest.raises(SeriesError, match="help of requests_total"):
        declare(help=text)


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0), (float("nan"),), (1.0, float("inf"))])
def test_bounds_must_be_finite_and_ascending(bounds: tuple[float, ...]) -> None:
    with pytest.raises(SeriesError, match="size_bytes"):
        declare(name="size_bytes", kind=Kind.HISTOGRAM, bounds=bounds)


def test_unit_must_end_the_name() -> None:
    assert declare(name="wait_seconds_total", unit="seconds").unit == "seconds"
    with pytest.raises(SeriesError, match="unit 'seconds'"):
        declare(unit="seconds")
