"""Definitions: what is calibrated, from a TOML file.

In: the file of STREAMGAUGE_THRESHOLDS_FILE, else the one beside this module. Out: Definitions.
Promise: a bad file is a SettingsError that names the threshold and its field.
"""

import tomllib
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from contract.series import SeriesError, check_metric_name, parse_key
from database.settings import SettingsError
from database.threshold_samples import Source
from optimizers.thresholds.calibrate import Rule
from optimizers.thresholds.rules import Side

SETTING: Final = "STREAMGAUGE_THRESHOLDS_FILE"
VALUES: Final = ("quantile", "rate", "ratio")
SCALES: Final = ("log", "linear")
BOUNDS: Final = ("static_warn", "static_critical", "hard_min", "hard_max")
FIELDS: Final = frozenset(
    {"name", "service", "value", "numerator", "denominator", "by_route", "quantile", "scale", "min_events", "side"}
)


class Definition(NamedTuple):
    """One metric to calibrate."""

    name: str
    source: Source
    rules: tuple[Rule, ...]
    """One or two: high, low."""
    service: str = ""
    """Which emits it: deploys of others teach all the same; '': not known, those of all are left out."""


class _Table:
    """A TOML table whose fields are read with their types; errors say where."""

    def __init__(self, where: str, table: Any) -> None:
        if not isinstance(table, dict):
            raise SettingsError(f"{where}: is no table")
        self.where = where
        self.fields = cast("dict[str, Any]", table)

    def known(self, names: frozenset[str]) -> None:
        for name in self.fields:
            if name not in names:
                raise SettingsError(f"{self.where}: {name}: no such field")

    def text(self, name: str, default: str | None = None) -> str:
        value = self.fields.get(name, default)
        if not isinstance(value, str):
            raise SettingsError(f"{self.where}: {name}: {'is missing' if value is None else 'is no text'}")
        return value

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.text(name)
        if value not in choices:
            raise SettingsError(f"{self.where}: {name}: {value!r} is none of {', '.join(choices)}")
        return value

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        value = self.fields.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            raise SettingsError(f"{self.where}: {name}: {'is missing' if value is None else 'is no number'}")
        if not low <= value <= high:
            raise SettingsError(f"{self.where}: {name}: {value:g} is not from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self.fields.get(name, False)
        if not isinstance(value, bool):
            raise SettingsError(f"{self.where}: {name}: is not true or false")
        return value

    def selector(self, name: str) -> str:
        value = self.text(name)
        try:
            parse_key(value.encode())
        except SeriesError as error:
            raise SettingsError(f"{self.where}: {name}: {error}") from None
        return value


def read_definitions(path: Path | None) -> list[Definition]:
    """Read and check the file."""
    shipped = files(__package__ or "optimizers.thresholds").joinpath("default.toml")
    try:
        document = tomllib.loads((path or shipped).read_text())
    except OSError as error:
        raise SettingsError(f"{SETTING}: {error.strerror}: {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{SETTING}: {path} is no TOML: {error}") from None
    tables: Any = document.get("threshold", [])
    if set(document) - {"threshold"} or not isinstance(tables, list):
        raise SettingsError(f"{SETTING}: {path} may hold [[threshold]] tables only")
    found: list[Definition] = []
    for number, table in enumerate(cast("list[Any]", tables), 1):
        one = _read_one(_Table(f"{SETTING}: threshold {number}", table))
        if one.name in {other.name for other in found}:
            raise SettingsError(f"{SETTING}: threshold {number}: name: {one.name} is taken")
        found.append(one)
    return found


def _read_one(table: _Table) -> Definition:
    table.known(FIELDS)
    name = table.text("name")
    try:
        check_metric_name(name)
    except SeriesError as error:
        raise SettingsError(f"{table.where}: name: {error}") from None
    value = table.one_of("value", VALUES)
    source = Source(
        value,
        table.selector("numerator"),
        table.selector("denominator") if value == "ratio" else "",
        table.flag("by_route"),
        table.number("quantile", 0.01, 0.999) if value == "quantile" else 0.0,
        int(table.number("min_events", 1, 1e9, 1)),
    )
    is_log = table.one_of("scale", SCALES) == "log"
    sides = _Table(f"{table.where}: side", table.fields.get("side"))
    sides.known(frozenset({"high", "low"}))
    if not sides.fields:
        raise SettingsError(f"{table.where}: side: neither high nor low is given")
    chosen: tuple[Side, ...] = ("high", "low")
    found = tuple(_rule(sides, side, is_log) for side in chosen if side in sides.fields)
    return Definition(name, source, found, table.text("service", ""))


def _rule(sides: _Table, side: Side, is_log: bool) -> Rule:
    table = _Table(f"{sides.where}.{side}", sides.fields[side])
    table.known(frozenset(BOUNDS))
    warn, critical, low, high = (table.number(name, 0.0, 1e15) for name in BOUNDS)
    if low >= high:
        raise SettingsError(f"{table.where}: hard_min: is not below hard_max")
    if (warn > critical) if side == "high" else (warn < critical):
        raise SettingsError(f"{table.where}: static_critical: is reached before static_warn")
    for name, value in (("static_warn", warn), ("static_critical", critical)):
        if not low <= value <= high:
            raise SettingsError(f"{table.where}: {name}: is not from hard_min to hard_max")
    return Rule(side, is_log, warn, critical, low, high)
