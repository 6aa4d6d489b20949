"""Child processes: start them so that they cannot outlive us, know them again by pid, end them.

In: argument lists and log files. Out: `subprocess.Popen` objects, or a `Known` pid that survives being written down.
Promise: a pid is only ever signalled when it is still the process that was started (same start time).
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
POLL_S: Final = 0.02


class StartError(Exception):
    """A process did not become ready; the text says which, why and shows its last log lines."""


@dataclass(frozen=True)
class Known:
    """A process that can be recognised later: pids are reused, the pair (pid, start time) is not."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Known":
        """Describe a running process."""
        return cls(pid, _start_time(pid))

    def is_alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return bool(self.started) and _start_time(self.pid) == self.started

    def stop(self, number: signal.Signals = signal.SIGTERM, deadline_s: float = 10.0) -> None:
        """Signal the process and wait until it is gone; SIGKILL at the deadline."""
        if not self.is_alive():
            return
        os.kill(self.pid, number)
        if not wait_until(lambda: not self.is_alive(), deadline_s):
            os.kill(self.pid, signal.SIGKILL)
            wait_until(lambda: not self.is_alive(), 5.0)


def _start_time(pid: int) -> str:
    """Return field 22 of /proc/<pid>/stat (empty: no such process); elsewhere what `ps` prints."""
    if sys.platform != "linux":
        found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return found.stdout.strip()
    try:
        # The second field is the command in parentheses and may hold anything, so read after the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def wait_until(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Poll `condition` until it holds or the deadline passed; returns whether it held."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def free_port() -> int:
    """Return a TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_taken(port: int) -> bool:
    """Whether somebody listens on (or holds) this loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def start(
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    user: tuple[int, int] | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, with its output appended to `log`.

    It ends with `death_signal` when the starting thread dies, even by SIGKILL (Linux). Its own session keeps
    the terminal's Ctrl-C from reaching it before the supervisor has ended what depends on it.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
            preexec_fn=_die_with_parent(death_signal),  # one system call, looked up before the fork
            user=user[0] if user else None,
            group=user[1] if user else None,
            extra_groups=[] if user else None,
        )


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def stop(process: subprocess.Popen[bytes], number: signal.Signals, deadline_s: float) -> int:
    """Signal a child and reap it; SIGKILL at the deadline. Returns its exit code."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def wait_ready(
    process: subprocess.Popen[bytes], ready: Callable[[], bool], name: str, log: Path, deadline_s: float
) -> None:
    """Wait until `ready()`; StartError with the last log lines when the process ends or the deadline passes."""
    wait_until(lambda: process.poll() is not None or ready(), deadline_s)
    if process.poll() is not None:
        raise StartError(f"{name} ended with code {process.returncode}:\n{last_lines(log)}")
    if not ready():
        raise StartError(f"{name} was not ready after {deadline_s:g} s:\n{last_lines(log)}")


def last_lines(log: Path, count: int = 15) -> str:
    """Return the last lines of a log, indented, for an error message."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        lines = ["(no log)"]
    return "\n".join(f"    {line}" for line in lines)
