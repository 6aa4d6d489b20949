"""Thresholds of checks: the defaults of each, replaced by a settings file.

In: STREAMGAUGE_CHECKS_FILE, TOML with a table per check and a key per threshold. Out: the checks.
Promise: a table, key or type that no check has is a SettingsError that names it.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Final

from database.settings import SettingsError
from optimizers.check import Check

SETTING: Final = "STREAMGAUGE_CHECKS_FILE"


def read_checks(kinds: Sequence[type[Check]], path: Path | None) -> list[Check]:
    """Return one check of each kind, with the file's thresholds in place of its own."""
    given = _read(path) if path is not None else {}
    unknown = given.keys() - {kind.id for kind in kinds}
    if unknown:
        raise SettingsError(f"{SETTING}: there is no check {min(unknown)}")
    return [kind(**_thresholds(kind, given.get(kind.id, {}))) for kind in kinds]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{SETTING}: {error.strerror}: {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{SETTING}: {path}: {error}") from None


def _thresholds(kind: type[Check], given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise SettingsError(f"{SETTING}: {kind.id} is not a table")
    own: dict[str, Field[Any]] = {field.name: field for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    values: Mapping[str, Any] = given  # pyright: ignore[reportUnknownVariableType]
    for name, value in values.items():
        if name not in own:
            raise SettingsError(f"{SETTING}: {kind.id} has no threshold {name}; it has {', '.join(own) or 'none'}")
        _require_type(f"{kind.id}.{name}", own[name].default, value)
    return {name: type(own[name].default)(value) for name, value in values.items()}


def _require_type(name: str, default: object, value: object) -> None:
    """A number for a number (no boolean, no fraction for a whole number), else the same type; never below zero."""
    wanted = (int, float) if isinstance(default, float) else (type(default),)
    if type(value) not in wanted:
        raise SettingsError(f"{SETTING}: {name} is {value!r}, it must be {type(default).__name__} as {default!r} is")
    if isinstance(value, (int, float)) and not 0 <= value < float("inf"):
        raise SettingsError(f"{SETTING}: {name} is {value!r}, it must not be below zero")
