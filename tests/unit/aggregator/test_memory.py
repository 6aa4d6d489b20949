"""What a backlog needed stays with the process for a while, and is given back."""

import subprocess
import sys

import pytest

PROCESS = """
import numpy as np, psutil
from aggregator.memory import give_back, keep_freed
me = psutil.Process()
assert keep_freed()
least = me.memory_info().rss
held = [np.ones(1 << 20) for _ in range(40)]
last = np.ones(1)
del held
kept = me.memory_info().rss - least
give_back()
print(kept >> 20, (me.memory_info().rss - least) >> 20)
"""
ALLOCATED_MIB = 40 * 8


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="NOTHING IS KEPT WITHOUT GLIBC")
def test_what_is_freed_is_kept_and_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, timeout=60, check=True)
    kept, left = (int(word) for word in done.stdout.split())
    assert kept > 0.9 * ALLOCATED_MIB, "freed, and still there: the next fold needs it"
    assert left < 0.1 * ALLOCATED_MIB
