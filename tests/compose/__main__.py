"""`python -m tests.compose`: build stand-ins and our image, bring the compose file up, break parts of it, take it down.

In: root on Debian, with docker.io, docker-compose and debootstrap; the first run takes packages and wheels from their
registries and keeps them under .streamgauge/compose. Out: a line for each step. Promise: engine, networks, ports and
processes live in namespaces that end with this command; exit code 1 where anything did not hold.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from streamgauge.hardening.files import interpolate
from tests.compose import checks, images
from tests.compose.checks import System
from tests.compose.engine import Engine
from tests.compose.load import Load
from tests.watching import ROOT, binary

KEPT: Final = ROOT / ".streamgauge/compose"
FILE: Final = "docker-compose.scale.yml"
INSIDE: Final = "--inside"
NAMESPACES: Final = ("unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
# `/` must be a shared mount for the one service that looks at it.
ENTER: Final = 'ip link set lo up && mount --make-rshared / && exec "$@"'
CALM_S: Final = 15.0
"""How long the load runs between two faults."""


def step(what: str, do: Callable[[], object]) -> None:
    """Do something, and print what came of it and how long it took."""
    print(f"  {what} ...", flush=True)
    began_s = time.monotonic()
    said = do()
    print(f"  {what}: {said or 'done'} ({time.monotonic() - began_s:.0f} s)", flush=True)


def prepare() -> None:
    """Fetch what the stand-ins are made of, unless an earlier run did."""
    KEPT.mkdir(parents=True, exist_ok=True)
    locks = b"".join((ROOT / name).read_bytes() for name in images.LOCKS)
    if not (root := KEPT / "root.tar").exists():
        step("a root file system of Debian packages", lambda: images.make_root(root))
    kept = KEPT / "locks"
    if not kept.exists() or kept.read_bytes() != locks:
        step(f"wheels of {', '.join(images.LOCKS)}", lambda: images.make_wheelhouse(KEPT / "wheels"))
        kept.write_bytes(locks)


def copy_project(folder: Path) -> dict[str, Any]:
    """Copy what is under version control, make its secrets; returns the compose file.

    One line is left out: `name`, which Debian's docker-compose does not know yet.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    for name in listed.stdout.rstrip("\0").split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    lines = (folder / FILE).read_text().splitlines(keepends=True)
    (folder / FILE).write_text("".join(line for line in lines if not line.startswith("name:")))
    images.shell([str(folder / "scripts/bootstrap.sh")])
    return yaml.safe_load(interpolate((folder / FILE).read_text(), {}))


def run_all(home: Path) -> None:
    """Everything between starting the engine and ending it."""
    project = home / "project"
    found = copy_project(project)
    engine = Engine(home)
    os.environ["DOCKER_DATA_ROOT"] = str(engine.data_root)
    engine.environ["DOCKER_DATA_ROOT"] = str(engine.data_root)
    step("dockerd", engine.open)
    try:
        make = (KEPT / "root.tar", KEPT / "wheels", home / "images")
        step(
            f"{len(images.pinned(found))} stand-in images and our own from the Dockerfile",
            lambda: images.make_images(engine.docker, found, *make),
        )
        ours = found["services"]["migrate"]["image"]
        step("what our image adds to its base", lambda: images.check_size(engine.docker, ours))
        print(f"  STUBS, not run: {', '.join(images.STUBS)}")
        try:
            exercise(System(engine, project), project / "secrets/nginx/ca.crt")
        finally:
            down = ("-f", FILE, "down", "-v", "--remove-orphans", "-t", "30")
            step("down", lambda: engine.compose(project, *down) and "")
        left = engine.left()
        assert not left, f"left behind: {left}"
        print("  no container, network or volume is left")
    finally:
        engine.close()


def exercise(system: System, authority: Path) -> None:
    """Bring it up, look at it, kill three parts of it under load, look again."""
    step("up", lambda: system.engine.compose(system.project, "-f", FILE, "up", "-d", "--no-build") and "")
    step("health", lambda: system.await_health(checks.UP_S))
    step("edge", lambda: checks.check_edge(authority))
    load = Load(authority)
    load.open()
    try:
        time.sleep(CALM_S)
        step("Prometheus", lambda: checks.check_targets(system))
        step("validate-hardening", lambda: checks.check_hardening(system))
        step("logs", lambda: checks.check_logs(system))
        step("health-check.sh", lambda: checks.check_health(system, ("ok",)))
        step("audit", lambda: checks.check_audit(system))
        step("DatabaseOptimizer", lambda: checks.check_optimizer(system))
        for name, kill in (
            ("an API replica", lambda: checks.crash(system, "api-3_1")),
            ("an aggregator", lambda: checks.crash(system, "aggregator_1")),
            ("the Redis master", lambda: checks.fail_over(system)),
        ):
            step(f"{name} killed", kill)
            time.sleep(CALM_S)
            assert not load.failures, f"requests failed: {load.failures[:10]}"
            assert load.interrupted <= 1, "requests come one by one, and one replica was killed"
    finally:
        load.close()
    told = f"{load.answered} answered, {load.interrupted} interrupted, {len(load.failures)} failed"
    print(f"  load: {told}; {load.statuses.most_common()}")
    step("audit", lambda: checks.check_audit(system))
    step("metrics", lambda: checks.check_counted(system, load))
    step("health-check.sh", lambda: checks.check_health(system, ("ok", "degraded")))


def main() -> int:
    """Prepare outside, run inside."""
    if sys.argv[1:2] == [INSIDE]:
        run_all(Path(sys.argv[2]))
        return 0
    if os.geteuid() != 0:
        print("compose-test: needs root, for an engine and namespaces of its own", file=sys.stderr)
        return 2
    for program in ("dockerd", "docker-compose", "debootstrap", "unshare", "ip"):
        binary(program)
    prepare()
    home = Path(tempfile.mkdtemp(prefix="sgc-", dir="/tmp"))
    try:
        again = [sys.executable, "-m", "tests.compose", INSIDE, str(home)]
        return subprocess.run([*NAMESPACES, "sh", "-c", ENTER, "sh", *again], cwd=ROOT, timeout=2400).returncode
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    sys.exit(main())
