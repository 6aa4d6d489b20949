"""Memory: makes freed memory stay with the process for a while, and the search for cycles rare.

A fold makes and frees arrays of some MB many times a second; by default glibc gives each back to the kernel, which
then has to clear every page again (measured: a third of the fold's CPU). So that what a backlog needed does not stay
for ever, all that is free is given back once a minute. Without glibc nothing is changed.
"""

import ctypes
import gc
import sys
from typing import Final

# From malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

KEPT_BYTES: Final = 512 << 20
"""At most this much stays although it is free: far above what folds of the largest commit need."""


def keep_freed() -> bool:
    """Ask malloc to keep what was freed, for this process; returns whether it will."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = (
        (_M_ARENA_MAX, 1),  # other arenas map large blocks by themselves
        (_M_MMAP_THRESHOLD, 32 << 20),  # the largest that glibc takes
        (_M_TRIM_THRESHOLD, KEPT_BYTES),
        (_M_TOP_PAD, 16 << 20),
    )
    taken = [mallopt(option, value) == 1 for option, value in wanted]
    return all(taken)


def give_back() -> None:
    """Give all that is free back to the kernel: tens of milliseconds for hundreds of MB, in a thread of its own."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


def collect_rarely() -> None:
    """Search for cycles after 50 000 new objects, not 700, and never among those of the start.

    A decoded batch is a few dozen objects in no cycle: looking at them again and again took 5 % of the processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
