"""The memory of a server process is the smallest limit above it, and never another process's."""

from pathlib import Path

import pytest

from optimizers.host_memory import memory_limit

GB = 1024**3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine of 64 GB with one PostgreSQL process, 7, in no group."""
    put(tmp_path, "proc/meminfo", f"MemTotal: {64 * 1024**2} kB\nMemFree: 1 kB\n")
    put(tmp_path, "proc/7/comm", "postgres\n")
    put(tmp_path, "proc/7/cgroup", "0::/\n")
    return tmp_path


def put(root: Path, path: str, text: str) -> None:
    """Write a file of the machine."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_without_a_group_it_is_what_is_installed(root: Path) -> None:
    """No limit is the machine's."""
    assert memory_limit(7, root) == 64 * GB


def test_version_2_takes_the_smallest_limit_on_the_way_up(root: Path) -> None:
    """A slice above the container may allow less than the container does."""
    put(root, "proc/7/cgroup", "0::/app.slice/db.scope\n")
    put(root, "sys/fs/cgroup/app.slice/db.scope/memory.max", "max\n")
    put(root, "sys/fs/cgroup/app.slice/memory.max", f"{4 * GB}\n")
    assert memory_limit(7, root) == 4 * GB
    put(root, "sys/fs/cgroup/app.slice/db.scope/memory.max", f"{2 * GB}\n")
    assert memory_limit(7, root) == 2 * GB


def test_version_2_in_a_container_is_the_mount_itself(root: Path) -> None:
    """Its own group is the root that it sees."""
    put(root, "sys/fs/cgroup/memory.max", f"{GB}\n")
    assert memory_limit(7, root) == GB


def test_version_1_reads_the_controller_of_memory(root: Path) -> None:
    """Unlimited is a number larger than any machine; other controllers have no say."""
    put(root, "proc/7/cgroup", "11:cpu,cpuacct:/docker/x\n5:memory:/docker/x\n0::/\n")
    put(root, "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", f"{3 * GB}\n")
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit(7, root) == 3 * GB


def test_process_that_is_not_postgresql_is_unknown(root: Path) -> None:
    """The number of a process on another host may mean anything here."""
    put(root, "proc/8/comm", "python\n")
    put(root, "proc/8/cgroup", "0::/\n")
    assert memory_limit(8, root) is None
    assert memory_limit(9, root) is None
