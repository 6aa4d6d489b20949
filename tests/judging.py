"""Judging what runs, for tests of the live rules of `scripts/validate-hardening`.

Promise: a rule is asked again until it comes out as it should, within a deadline: servers take a reload in a moment.
"""

import asyncio
import os
import pwd
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

from database import queries
from streamgauge.hardening.__main__ import RULES
from streamgauge.hardening.live import Live
from streamgauge.hardening.rule import Rule, Status, Verdict, judge_live
from streamgauge.processes import wait_until
from tests.postgres_node import USER, Node

DEADLINE_S: Final = 20.0
BY_ID: Final = {rule.id: rule for rule in RULES}


@contextmanager
def the_superuser() -> Generator[None]:
    """Be the operating system's user who is the superuser by `peer`: he comes in no other way."""
    for file in Path(queries.__file__).parent.glob("hardening_*.sql"):
        queries.load(file.stem)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(pwd.getpwnam(USER).pw_uid)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def judged(rule: Rule, live: Live) -> Verdict:
    """Judge one rule on what runs."""
    with the_superuser() if rule.id.startswith("P") else nullcontext():
        return asyncio.run(judge_live(rule, live))


def comes_out(name: str, live: Live, status: Status, evidence: str = "") -> Verdict:
    """Wait until a rule comes out so and says so, and return what is said of it.

    A reload takes a moment, and may come between two of the questions that a rule asks.
    """
    found: list[Verdict] = []

    def is_so() -> bool:
        found.append(judged(BY_ID[name], live))
        return found[-1].status is status and evidence in found[-1].evidence

    assert wait_until(is_so, DEADLINE_S), found[-1]
    return found[-1]


def is_told(name: str, live: Live, evidence: str) -> None:
    """A rule fails, says why and what to do."""
    assert comes_out(name, live, Status.FAIL, evidence).fix


def postgres(node: Node) -> Live:
    """Return where a node is for its superuser, who comes in over the socket only."""
    return Live(postgres=f"postgresql://{USER}@/streamgauge?host={node.run}&port={node.cluster.port}")
