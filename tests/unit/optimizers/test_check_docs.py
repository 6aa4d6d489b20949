"""The page of checks says what the checks are: each one, its title and every threshold with its default."""

import re
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from database.queries import load
from optimizers.check import Check
from optimizers.checks import CHECKS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/database-checks.md").read_text()


def thresholds(kind: type[Check]) -> dict[str, str]:
    """Thresholds of a check with their defaults as TOML writes them."""
    own: tuple[Field[Any], ...] = fields(kind)  # pyright: ignore[reportArgumentType]
    return {field.name: _toml(field.default) for field in own}


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def test_page_lists_every_check_with_its_thresholds_and_defaults() -> None:
    """In the catalogue's order, and no others."""
    rows = re.findall(r"^\| ([A-Z]\d) ([^|]+?) \|.*\| ([^|]+) \|$", PAGE, re.MULTILINE)
    listed = [(name, title, dict(re.findall(r"`(\w+)=([^`]*)`", cell))) for name, title, cell in rows]
    assert listed == [(kind.id, kind.title, thresholds(kind)) for kind in CHECKS]


def test_every_check_has_a_file_and_sql_of_its_own() -> None:
    """Named after its id, so that a finding leads to both."""
    for kind in CHECKS:
        name = kind.__module__.rpartition(".")[2]
        assert name.startswith(f"{kind.id.lower()}_")
        source = (ROOT / f"optimizers/checks/{name}.py").read_text()
        assert source.startswith(f'"""{kind.id}: ')


def test_first_line_of_every_query_says_what_it_returns() -> None:
    """A comment, as for every other query."""
    for path in (ROOT / "database/queries").glob("check_*.sql"):
        assert load(path.stem).startswith("-- "), path.name
