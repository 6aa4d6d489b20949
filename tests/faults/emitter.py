"""An emitter that a kill leaves a count of: the load generator, and a page that says how many emits have returned.

Run as `python -m tests.faults.emitter PLAN PAGE`. In: a load plan, a file. Out: events, and 8 bytes in the file.
Promise: the page outlives the process; it is raised after each emit has returned, so it is one behind at most.
"""

import mmap
import os
import struct
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from streamgauge import load_worker
from streamgauge.load_plan import Plan
from streamgauge.load_worker import Target

PAGE_BYTES = 8


def emitted(page: Path) -> int:
    """Return how many emits have returned."""
    return int.from_bytes(page.read_bytes()[:PAGE_BYTES], "little") if page.exists() else 0


def main() -> int:
    """Run the plan in argv[1], counting on the page in argv[2]."""
    fd = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, PAGE_BYTES)
    page = mmap.mmap(fd, PAGE_BYTES)
    returned = count(1)
    declare = load_worker.targets

    def counted(emit: Callable[[float], None]) -> Callable[[float], None]:
        def call(value: float) -> None:
            emit(value)
            page[:PAGE_BYTES] = struct.pack("<Q", next(returned))

        return call

    class Counting(load_worker.Worker):
        def __init__(self, plan: Plan) -> None:
            super().__init__(plan)
            self._probe = self._probe._replace(emit=counted(self._probe.emit))

    def targets(plan: Plan) -> list[Target]:
        return [target._replace(emit=counted(target.emit)) for target in declare(plan)]

    load_worker.targets, load_worker.Worker = targets, Counting
    return load_worker.main()


if __name__ == "__main__":
    sys.exit(main())
