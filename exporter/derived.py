"""Derived gauges: ratios of two selectors over a trailing window, from a TOML file.

In: `[[derived]]` tables with name, help, numerator, denominator, window_s; sums of windows per series.
Out: checked definitions; samples. Promise: no sample while the denominator is 0; a bad file ends the start with
exit code 2 and the field's name.
"""

import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from contract.metric import MAX_HELP_BYTES, Kind
from contract.self_metrics import CATALOGUE
from contract.series import SeriesError, check_metric_name
from database.connect import Connection
from database.queries import load
from database.settings import SettingsError
from exporter.exposition import format_value, header
from exporter.selector import Selector, parse_selector

SETTING: Final = "STREAMGAUGE_DERIVED_FILE"
FIELDS: Final = ("name", "help", "numerator", "denominator", "window_s")
MAX_WINDOW_S: Final = 86_400


class Derived(NamedTuple):
    """One ratio."""

    name: str
    help: str
    numerator: Selector
    denominator: Selector
    window_s: int


class Sums(NamedTuple):
    """What a series gathered in a window."""

    name: str
    kind: Kind
    key: str
    n: int
    sum: float


def read_derived(path: Path | None) -> list[Derived]:
    """Read and check the file; SettingsError names the field."""
    if path is None:
        return []
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{SETTING}: {error.strerror}: {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{SETTING}: {path} is no TOML: {error}") from None
    if set(document) - {"derived"} or not isinstance(document.get("derived", []), list):
        raise SettingsError(f"{SETTING}: {path} may hold [[derived]] tables only")
    tables: list[Any] = document.get("derived", [])
    found: list[Derived] = []
    taken = {metric.name for metric in CATALOGUE}
    for number, table in enumerate(tables, 1):
        one = _read_one(f"{SETTING}: derived {number}", table)
        if one.name in taken:
            raise SettingsError(f"{SETTING}: derived {number}: name: {one.name} is taken")
        taken.add(one.name)
        found.append(one)
    return found


def _read_one(where: str, table: Any) -> Derived:
    fields = _check_fields(where, table)
    name = "name"
    try:
        check_metric_name(fields["name"])
        name = "numerator"
        numerator = parse_selector(fields[name])
        name = "denominator"
        denominator = parse_selector(fields[name])
    except SeriesError as error:
        raise SettingsError(f"{where}: {name}: {error}") from None
    return Derived(fields["name"], fields["help"], numerator, denominator, fields["window_s"])


def _check_fields(where: str, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise SettingsError(f"{where}: is no table")
    fields = cast("dict[str, Any]", table)
    for name in fields:
        if name not in FIELDS:
            raise SettingsError(f"{where}: {name}: no such field")
    for name in FIELDS:
        if name not in fields:
            raise SettingsError(f"{where}: {name}: is missing")
        wanted = int if name == "window_s" else str
        if type(fields[name]) is not wanted:
            raise SettingsError(f"{where}: {name}: is no {'integer' if wanted is int else 'text'}")
    if not 10 <= fields["window_s"] <= MAX_WINDOW_S or fields["window_s"] % 10:
        raise SettingsError(f"{where}: window_s: {fields['window_s']} is no multiple of 10 from 10 to {MAX_WINDOW_S}")
    if len(fields["help"].encode()) > MAX_HELP_BYTES:
        raise SettingsError(f"{where}: help: is longer than {MAX_HELP_BYTES} bytes")
    return fields


async def read_ratios(connection: Connection, derived: Iterable[Derived], now_s: float) -> dict[str, float]:
    """Return the ratio of each that has one, over the windows that began in its trailing time."""
    found: dict[str, float] = {}
    for one in derived:
        names = list({one.numerator.name, one.denominator.name})
        rows = await connection.fetch(load("exporter_metric_series"), names)
        start = datetime.fromtimestamp((now_s - one.window_s) // 10 * 10, UTC)
        sums = await connection.fetch(load("exporter_window_sums"), [row["series_id"] for row in rows], start)
        of = {row["series_id"]: row for row in sums}
        gathered = [
            Sums(row["name"], Kind(row["kind"]), row["key"], of[row["series_id"]]["n"], of[row["series_id"]]["sum"])
            for row in rows
            if row["series_id"] in of
        ]
        value = ratio(one, gathered)
        if value is not None:
            found[one.name] = value
    return found


def ratio(one: Derived, gathered: Iterable[Sums]) -> float | None:
    """Return numerator / denominator; None when that is 0. Histograms count their events, counters what they added."""
    sides = {True: 0.0, False: 0.0}
    for sums in gathered:
        value = float(sums.n) if sums.kind is Kind.HISTOGRAM else sums.sum
        for is_numerator, selector in ((True, one.numerator), (False, one.denominator)):
            if sums.name == selector.name and selector.takes(sums.key):
                sides[is_numerator] += value
    return sides[True] / sides[False] if sides[False] else None


def render(derived: Iterable[Derived], ratios: Mapping[str, float], *, openmetrics: bool) -> bytes:
    """Return the families of those that have a value."""
    return b"".join(
        header(one.name, Kind.GAUGE, one.help, "", openmetrics=openmetrics)
        + f"{one.name} {format_value(ratios[one.name])}\n".encode()
        for one in derived
        if one.name in ratios
    )
