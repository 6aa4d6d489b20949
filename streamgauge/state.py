"""What `up` writes down while it runs: who runs, and at which addresses; one `up` per home.

In: a home directory. Out: a locked `up.json` there, removed at the end.
Promise: the lock ends with its process, whatever kills it; what it had started is then found by pid and start time.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from streamgauge.processes import Known, StartError


def home_of(environ: Mapping[str, str]) -> Path:
    """Return $STREAMGAUGE_HOME, by default `.streamgauge` in the current directory."""
    return Path(environ.get("STREAMGAUGE_HOME") or ".streamgauge").resolve()


class Child(msgspec.Struct, frozen=True):
    """One process that `up` started."""

    name: str
    pid: int
    started: str

    def known(self) -> Known:
        """Return the process as one that can be recognised."""
        return Known(self.pid, self.started)


class UpState(msgspec.Struct):
    """The content of up.json."""

    supervisor: Child
    addresses: dict[str, str] = {}
    children: list[Child] = []


class StateFile:
    """up.json, held under an exclusive lock by the `up` that owns this home."""

    def __init__(self, home: Path) -> None:
        self.path = home / "up.json"
        self._fd = -1

    def acquire(self) -> UpState | None:
        """Take the home for this process; returns what a crashed `up` left written, if any."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(self._fd)
                raise StartError(f"already up in {self.path.parent}: `streamgauge down` stops it") from None
            # The file may have been removed by its former owner between our open and our lock.
            if self.path.exists() and os.fstat(self._fd).st_ino == self.path.stat().st_ino:
                return read_state(self.path.parent)
            os.close(self._fd)

    def write(self, state: UpState) -> None:
        """Replace the content; in place, since the lock belongs to the file and not to its name."""
        data = json.dumps(msgspec.to_builtins(state), indent=1).encode() + b"\n"
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)

    def release(self) -> None:
        """Remove the file and its lock."""
        self.path.unlink(missing_ok=True)
        self.abandon()

    def abandon(self) -> None:
        """Give up the lock and leave the file, as the end of a killed process does."""
        os.close(self._fd)


def read_state(home: Path) -> UpState | None:
    """Return what the last `up` of this home wrote; None when there is none, or it was cut short."""
    try:
        content: Any = (home / "up.json").read_bytes()
        return msgspec.json.decode(content, type=UpState)
    except (OSError, msgspec.MsgspecError):
        return None
