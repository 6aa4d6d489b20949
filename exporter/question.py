"""Question: what /api/rollups is asked, read from the query string.

In: the parameters as text, and the time. Out: a checked Question; BadQuestion names the parameter. Pure.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from contract.series import SeriesError
from contract.windows import LEVELS_S
from exporter.selector import Selector, parse_selector

MAX_POINTS: Final = 11_000
"""As Prometheus allows a range query."""
MAX_QUANTILES: Final = 10
STEP: Final = "^[0-9]{1,9}[smhd]?$"
INSTANT: Final = (
    "^(|now|(now)?-[0-9]{1,9}[smhd]|[0-9]{1,10}([.][0-9]{1,9})?"
    "|[0-9]{4}-[0-9]{2}-[0-9]{2}"
    "([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{3}([0-9]{3})?)?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?)$"
)
QUANTILES: Final = "^(0([.][0-9]{1,15})?|1([.]0{1,15})?)(,(0([.][0-9]{1,15})?|1([.]0{1,15})?))*$"
"""Patterns of the parameters, as the API's description tells them."""
_STEP: Final = re.compile(r"([0-9]{1,9})(s|m|h|d)?")
_AGO: Final = re.compile(r"(?:now)?-([0-9]{1,9})(s|m|h|d)")
_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class BadQuestion(ValueError):
    """A parameter that cannot be answered."""

    def __init__(self, parameter: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.parameter = parameter
        self.status = status


class Question(NamedTuple):
    """Windows `[from_s, to_s)` of `step_s`, aligned to it."""

    selector: Selector
    from_s: int
    to_s: int
    step_s: int
    quantiles: tuple[float, ...]

    @property
    def level(self) -> str:
        """The coarsest level that the step is made of."""
        return next(level for level, width_s in reversed(LEVELS_S.items()) if self.step_s % width_s == 0)


def read_question(
    metric: str, match: str, since: str, until: str, step: str, quantiles: Sequence[str], now_s: float
) -> Question:
    """Check all parameters; BadQuestion names the first bad one."""
    selector = _selector(metric, match)
    step_s = _step(step)
    to_s = _instant("to", until, now_s, now_s)
    from_s = _instant("from", since, to_s - 3600, now_s)
    if from_s >= to_s:
        raise BadQuestion("from", "is not before `to`", 422)
    low, high = int(from_s // step_s * step_s), int(-(-to_s // step_s) * step_s)
    if (high - low) // step_s > MAX_POINTS:
        raise BadQuestion("step", f"gives {(high - low) // step_s} points; at most {MAX_POINTS} are allowed", 422)
    if len(quantiles) > MAX_QUANTILES:
        raise BadQuestion("quantile", f"is given {len(quantiles)} times; at most {MAX_QUANTILES} are allowed", 422)
    return Question(selector, low, high, step_s, tuple(_quantile(text) for text in quantiles))


def _selector(metric: str, match: str) -> Selector:
    if not metric:
        raise BadQuestion("metric", "is missing")
    parameter = "match" if match else "metric"
    try:
        return parse_selector(metric + match)
    except SeriesError as error:
        raise BadQuestion(parameter, str(error)) from None


def _step(text: str) -> int:
    found = _STEP.fullmatch(text)
    if not found:
        raise BadQuestion("step", f"{text!r} is no duration such as 10s, 5m or 1h")
    step_s = int(found[1]) * _UNITS_S[found[2] or ""]
    if step_s <= 0 or step_s % 10 or step_s > 366 * 86_400:
        raise BadQuestion("step", f"{text!r} is no multiple of 10 s up to a year", 422)
    return step_s


def _instant(parameter: str, text: str, default: float, now_s: float) -> float:
    if not text:
        return default
    ago = _AGO.fullmatch(text)
    at_s = now_s if text == "now" else now_s - int(ago[1]) * _UNITS_S[ago[2]] if ago else _absolute(parameter, text)
    if not 0 <= at_s < 1 << 35:
        raise BadQuestion(parameter, f"{text!r} is out of range", 422)
    return at_s


def _absolute(parameter: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        said = f"{text!r} is none of Unix seconds, ISO 8601, now, -1h"
        raise BadQuestion(parameter, said) from None


def _quantile(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadQuestion("quantile", f"{text!r} is no number") from None
    if not 0 <= value <= 1:
        raise BadQuestion("quantile", f"{text!r} is not from 0 to 1", 422)
    return value
