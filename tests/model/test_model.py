"""The model check finds nothing in the code as it is, and finds every mutant out.

In processes of their own: there production code lives in simulated time. `make model` searches for longer.
"""

import re
import subprocess
import sys
from typing import Final

import pytest

from tests.model.mutants import MUTANTS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

SCHEDULES: Final = 1000
LIMIT: Final = 2000
"""Schedules that a mutant gets at most; most need fewer than fifty."""
DEADLINE_S: Final = 540.0


def search(*options: str) -> tuple[int, str]:
    """Run a search; returns its exit code and what it said."""
    command = [sys.executable, "-m", "tests.model", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout


def test_no_schedule_breaks_a_promise() -> None:
    code, said = search("--seed", "1", "--schedules", str(SCHEDULES))
    assert code == 0, said
    assert f"{SCHEDULES} schedules, {SCHEDULES} distinct" in said


def test_every_mutant_is_found_out() -> None:
    code, said = search("--seed", "1", "--schedules", str(LIMIT), "--mutants")
    assert code == 0, said
    assert f"all {len(MUTANTS)} mutants are found out" in said


def test_a_seed_does_the_same_everywhere() -> None:
    """The number of processes, and what they ran before, make no difference to schedules, steps and states."""
    alone, together = (search("--seed", "7", "--schedules", "150", "--jobs", jobs)[1] for jobs in ("1", "2"))
    assert re.sub(r"[\d.]+ s on .*", "", alone) == re.sub(r"[\d.]+ s on .*", "", together)


def test_what_breaks_a_promise_is_cut_short_and_repeats() -> None:
    code, said = search("--seed", "1", "--schedules", str(LIMIT), "--jobs", "1", "--mutant", "trim-unflushed")
    assert code == 1
    broken = re.search(r"BROKEN by seed (\d+): (.*)\nas (\d+) actions:", said)
    assert broken is not None and int(broken[3]) < 40, said
    code, again = search(*said.splitlines()[-1].removeprefix("again: python -m tests.model ").split())
    assert code == 1 and f"BROKEN by seed {broken[1]}: {broken[2]}" in again
