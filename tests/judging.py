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


def comes_out(name: str, live: Live, status: Status) -> Verdict:
    """Wait until a rule comes out so (a reload takes a moment) and return what is said of it."""
    found: list[Verdict] = []
    wait_until(lambda: found.append(judged(BY_ID[name], live)) or found[-1].status is status, DEADLINE_S)
    assert found[-1].status is status, found[-1]
    return found[-1]


def is_told(name: str, live: Live, evidence: str) -> None:
    """A rule fails, says why and what to do."""
    verdict = comes_out(name, live, Status.FAIL)
    assert evidence in verdict.evidence
    assert verdict.fix


def postgres(node: Node) -> Live:
    """Return where a node is for its superuser, who comes in over the socket only."""
    return Live(postgres=f"postgresql://{USER}@/streamgauge?host={node.run}&port={node.cluster.port}")
