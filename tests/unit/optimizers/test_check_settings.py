"""Thresholds from a file: each mistake is named."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from database.settings import SettingsError
from optimizers.check import Answer, Look
from optimizers.check_settings import read_checks
from optimizers.checks import CHECKS


@dataclass(frozen=True)
class Sized:
    """Two thresholds."""

    id: ClassVar[str] = "T1"
    title: ClassVar[str] = "sized"
    timeout_s: ClassVar[float] = 1.0
    rows: int = 10
    share: float = 0.5

    async def look(self, look: Look) -> Answer:
        """Look at nothing."""
        return Answer()


def test_without_a_file_thresholds_are_the_checks_own() -> None:
    """Every check of the catalogue can be made."""
    assert read_checks([Sized], None) == [Sized()]
    assert len(read_checks(CHECKS, None)) == len(CHECKS)


def test_file_replaces_thresholds(tmp_path: Path) -> None:
    """A whole number will do where a fraction is wanted."""
    assert read_checks([Sized], given(tmp_path, "[T1]\nrows = 3\nshare = 1")) == [Sized(rows=3, share=1.0)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[T9]\nrows = 1", "there is no check T9"),
        ("[T1]\nrow = 1", "T1 has no threshold row; it has rows, share"),
        ("[T1]\nrows = 1.5", "T1.rows is 1.5, it must be int"),
        ("[T1]\nrows = true", "T1.rows is True"),
        ("[T1]\nshare = '1'", "T1.share is '1', it must be float"),
        ("[T1]\nshare = nan", "T1.share is nan"),
        ("[T1]\nrows = -1", "T1.rows is -1"),
        ("[T1]\nid = 'T2'", "T1 has no threshold id"),
        ("T1 = 3", "T1 is not a table"),
        ("[T1", "Expected"),
    ],
)
def test_mistake_is_named(tmp_path: Path, text: str, named: str) -> None:
    """With the setting's name before it."""
    with pytest.raises(SettingsError, match=r"^STREAMGAUGE_CHECKS_FILE: ") as caught:
        read_checks([Sized], given(tmp_path, text))
    assert named in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """No defaults in silence."""
    with pytest.raises(SettingsError, match="STREAMGAUGE_CHECKS_FILE: No such file"):
        read_checks([Sized], tmp_path / "none.toml")


def test_ids_are_unique_and_files_are_named_after_them() -> None:
    """One check per file."""
    ids = [kind.id for kind in CHECKS]
    assert len(set(ids)) == len(ids)
    for kind in CHECKS:
        assert kind.__module__.rpartition(".")[2].startswith(f"{kind.id.lower()}_")
        assert 0 < kind.timeout_s <= 30


def given(folder: Path, text: str) -> Path:
    path = folder / "checks.toml"
    path.write_text(text)
    return path
