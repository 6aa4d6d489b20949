"""How much memory a server process on this machine may use: its control group's limit, not the machine's RAM.

In: the process id that PostgreSQL gives for a backend. Out: bytes, or None where the process is not one of ours to see.
Promise: nothing is guessed: a process id that means something else here (another host, another container) is None.
"""

from collections.abc import Iterator
from pathlib import Path


def memory_limit(pid: int, root: Path = Path("/")) -> int | None:
    """Return the smallest limit that holds for a PostgreSQL process, or None if there is no such process here.

    Control groups v2 (`memory.max` of the group and of all above it) and v1 (`memory.limit_in_bytes`).
    """
    process = root / "proc" / str(pid)
    if not (_read(process / "comm") or "").startswith("postgres"):
        return None
    limits = [*_group_limits(root, _read(process / "cgroup") or ""), *_installed(root)]
    return min(limits, default=None)


def _group_limits(root: Path, groups: str) -> Iterator[int]:
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _up(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _up(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")


def _up(mount: Path, path: str, file: str) -> Iterator[int]:
    """Read the limits of a group and of those above it; in a container its own group is the mount itself."""
    group = Path(path.strip("/"))
    for each in (group, *group.parents):
        text = _read(mount / each / file)
        if text is not None and text.strip().isdigit():
            yield int(text)


def _installed(root: Path) -> Iterator[int]:
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            yield int(line.split()[1]) * 1024


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
