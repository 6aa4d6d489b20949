"""up.json: one `up` per home, and what a killed one leaves can be found."""

from pathlib import Path

import pytest

from streamgauge.processes import StartError
from streamgauge.state import Child, StateFile, UpState, home_of, read_state

STATE = UpState(Child("up", 1, "2"), {"api": "http://127.0.0.1:8000"}, [Child("redis", 3, "4")])


def test_home_holds_one_up(tmp_path: Path) -> None:
    first = StateFile(tmp_path)
    assert first.acquire() is None
    with pytest.raises(StartError, match="already up"):
        StateFile(tmp_path).acquire()
    first.release()
    assert list(tmp_path.iterdir()) == [], "no lock file is left"


def test_next_up_learns_what_a_killed_one_ran(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text("a longer content, overwritten and not appended to" * 20)
    first = StateFile(tmp_path)
    assert first.acquire() is None
    first.write(STATE)
    assert read_state(tmp_path) == STATE
    first.abandon()
    second = StateFile(tmp_path)
    assert second.acquire() == STATE
    second.release()


def test_home_is_below_the_current_directory_unless_named(tmp_path: Path) -> None:
    assert home_of({"STREAMGAUGE_HOME": str(tmp_path)}) == tmp_path
    assert home_of({}) == Path.cwd() / ".streamgauge"
