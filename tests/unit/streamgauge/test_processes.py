"""Child processes: known again by pid and start time, never outliving their parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamgauge.processes import Known, StartError, start, stop, wait_ready, wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_process_is_known_until_it_ends(tmp_path: Path) -> None:
    process = start(SLEEP, tmp_path / "log")
    known = Known.of(process.pid)
    assert known.is_alive()
    assert stop(process, signal.SIGTERM, 10) == -signal.SIGTERM
    assert not known.is_alive()


def test_reused_pid_is_not_mistaken() -> None:
    other = Known(os.getpid(), "1")
    assert not other.is_alive()
    other.stop()  # would end this test run


def test_process_that_ignores_its_signal_is_killed_at_the_deadline(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    log = tmp_path / "log"
    process = start([sys.executable, "-c", code], log)
    assert wait_until(lambda: b"deaf" in log.read_bytes(), 10)
    assert stop(process, signal.SIGTERM, 0.1) == -signal.SIGKILL


def test_early_end_is_reported_with_the_last_log_lines(tmp_path: Path) -> None:
    process = start([sys.executable, "-c", "import sys; sys.exit('no such thing')"], tmp_path / "log")
    with pytest.raises(StartError, match=r"it ended with code 1:\n {4}no such thing"):
        wait_ready(process, lambda: False, "it", tmp_path / "log", 10)


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    parent = f"""
import os, sys
from pathlib import Path
from streamgauge.processes import start
child = start({SLEEP!r}, Path({str(tmp_path / "log")!r}))
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    child = Known.of(int(done.stdout))
    assert wait_until(lambda: not child.is_alive(), 10)
