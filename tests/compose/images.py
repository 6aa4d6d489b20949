"""Stand-in images under the pinned names of docker-compose.scale.yml, from Debian packages and wheels.

In: Debian's package registry and PyPI, as this machine has them set up; the compose file. Out: a root file system and
a wheelhouse (kept between runs), then images. Promise: our own image is built from the real Dockerfile; each service
that is only a stub is named in `STUBS`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from packaging.markers import Marker

from streamgauge.hardening.files import interpolate
from tests.watching import ROOT

STANDINS: Final = Path(__file__).parent / "standins"
SOURCES: Final = Path("/etc/apt/sources.list.d/debian.sources")
PACKAGES: Final = """
    python3 python3-venv python3-pip python-is-python3 redis-server redis-tools postgresql-15 nginx curl wget openssl
    procps prometheus prometheus-alertmanager prometheus-blackbox-exporter prometheus-node-exporter
    prometheus-postgres-exporter prometheus-redis-exporter
"""
PYTHON: Final = {"python_full_version": "3.11.2", "python_version": "3.11"}
"""Debian's."""

LOCKS: Final = ("services.lock", "build.lock")
BASE: Final = "streamgauge-standin"
STUBS: Final = {"grafana/grafana": 3000, "grafana/loki": 3100, "grafana/alloy": 12345}
"""Debian has none of these: a stub answers on the port of the health check, once it could write its folder."""

USERS: Final = {"postgres": 999, "redis": 999, "nginx": 101}
"""Users that the real images have, by image; the stand-in's own moves there."""

ENTRYPOINTS: Final = {
    "prom/prometheus": "prometheus",
    "prom/alertmanager": "prometheus-alertmanager",
    "prom/blackbox-exporter": "prometheus-blackbox-exporter",
    "prom/node-exporter": "prometheus-node-exporter",
    "quay.io/prometheuscommunity/postgres-exporter": "prometheus-postgres-exporter",
    "oliver006/redis_exporter": "prometheus-redis-exporter",
}
FOLDERS: Final = {
    "prom/prometheus": "65534:65534 755 /prometheus",
    "prom/alertmanager": "65534:65534 755 /alertmanager",
    "grafana/grafana": "472:0 755 /var/lib/grafana",
    "grafana/loki": "10001:10001 755 /loki",
    "grafana/alloy": "473:473 770 /var/lib/alloy",
    "redis": "999:999 755 /data",
    "postgres": "999:999 755 /var/lib/postgresql",
}
"""Folders that a new volume takes its owner and mode from, as the real images have them."""

MOST_BYTES: Final = 250_000_000
"""What our image may add to its base: an interpreter's packages, no compiler, no cache, no tests."""

Run = Callable[..., str]


def make_root(path: Path) -> None:
    """Make the root file system of all stand-ins as a tar file; takes some two minutes."""
    folder = path.with_suffix(".folder")
    shutil.rmtree(folder, ignore_errors=True)
    mirror = next(line.split()[1] for line in SOURCES.read_text().splitlines() if line.startswith("URIs:"))
    shell(["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(folder), mirror])
    (folder / "etc/apt/sources.list").unlink(missing_ok=True)
    shutil.copy(SOURCES, folder / "etc/apt/sources.list.d")
    shutil.copy("/etc/resolv.conf", folder / "etc")
    policy = folder / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    install = f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {' '.join(PACKAGES.split())}"
    shell(["chroot", str(folder), "sh", "-c", f"DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; {install}"])
    for left in ("etc/apt/sources.list.d/debian.sources", "etc/resolv.conf"):
        (folder / left).unlink()
    partial = path.with_suffix(".partial")
    shell(
        [
            "tar",
            "-C",
            str(folder),
            "--exclude=./var/cache/apt/*",
            "--exclude=./var/lib/apt/lists/*",
            "-cf",
            str(partial),
            ".",
        ]
    )
    shutil.rmtree(folder)
    partial.rename(path)


def make_wheelhouse(folder: Path) -> None:
    """Download what the image is made from, its hashes checked."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    download = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "-d", str(partial)]
    for_debian = ["--python-version", "3.11", "--only-binary", ":all:"]
    locked = folder.with_suffix(".lock")
    for name in LOCKS:
        locked.write_text(for_python((ROOT / name).read_text()))
        shell([*download, *for_debian, "--require-hashes", "-r", str(locked)])
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def for_python(lock: str) -> str:
    """Leave in a lock file what Debian's Python needs: pip judges markers by the Python that it runs in itself."""
    kept: list[str] = []
    for entry in re.split(r"^(?=\S)", lock, flags=re.MULTILINE):
        marker = entry.partition("\\\n")[0].partition(" ; ")[2]
        if not marker or Marker(marker.strip()).evaluate(dict(PYTHON)):
            kept.append(entry.replace(f" ; {marker}", " ", 1) if marker else entry)
    return "".join(kept)


def shell(command: list[str]) -> None:
    """Run a command; where it fails, what it printed last is the message."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed with code {done.returncode}:\n{done.stdout[-3000:]}")


def pinned(found: dict[str, Any]) -> list[str]:
    """Return the images that the compose file names and does not build."""
    return sorted({service["image"] for service in found["services"].values() if "build" not in service})


def dockerfile(image: str) -> str:
    """Return how the stand-in of one pinned image is made."""
    name = image.split(":")[0]
    lines = [f"FROM {BASE}"]
    if name in USERS:
        own = "www-data" if name == "nginx" else name
        # The number may be another account's of Debian's, which nobody uses here.
        lines.append(f"RUN usermod -o -u {USERS[name]} {own} && groupmod -o -g {USERS[name]} {own}")
    if name in FOLDERS:
        owner, mode, folder = FOLDERS[name].split()
        lines.append(f"RUN mkdir -p {folder} && chown -R {owner} {folder} && chmod {mode} {folder}")
    if name == "postgres":
        lines.append("ENV PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin PGDATA=/var/lib/postgresql/18/docker")
        lines.append("COPY docker-entrypoint.sh /usr/local/bin/")
        lines.append("RUN ln -s /usr/local/bin/docker-entrypoint.sh /usr/bin/ && rm -rf /var/lib/postgresql/*")
    if name in ENTRYPOINTS:
        lines.append(f'ENTRYPOINT ["{ENTRYPOINTS[name]}"]')
    if name in STUBS:
        folder = FOLDERS[name].split()[2]
        lines += ["COPY stub.py /", f'ENTRYPOINT ["python3", "/stub.py", "{STUBS[name]}", "{folder}"]']
    return "\n".join(lines) + "\n"


def make_images(docker: Run, found: dict[str, Any], root: Path, wheels: Path, folder: Path) -> None:
    """Import the root, make a stand-in for each pinned image, then build our own from the real Dockerfile."""
    docker("import", str(root), BASE)
    folder.mkdir()
    for file in STANDINS.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    for image in pinned(found):
        (folder / "Dockerfile").write_text(dockerfile(image))
        docker("build", "-q", "-t", image, str(folder))
    _make_python(docker, wheels, folder)
    docker("build", "-q", "-t", found["services"]["migrate"]["image"], str(ROOT))


def check_size(docker: Run, image: str) -> str:
    """What our image adds to the one that it begins with; the base itself is a stand-in here, and another size."""
    sizes = [int(docker("image", "inspect", "-f", "{{.Size}}", name)) for name in (image, first_image())]
    added_bytes = sizes[0] - sizes[1]
    assert 0 < added_bytes <= MOST_BYTES, f"{added_bytes / 1e6:.0f} MB, {MOST_BYTES / 1e6:.0f} are allowed"
    return f"{added_bytes / 1e6:.0f} MB"


def first_image() -> str:
    """Return the image that the Dockerfile begins with."""
    text = interpolate((ROOT / "Dockerfile").read_text(), {})
    (begins,) = {line.split()[1] for line in text.splitlines() if line.startswith("FROM")}
    return begins


def _make_python(docker: Run, wheels: Path, folder: Path) -> None:
    """Make the stand-in of the image that the Dockerfile begins with: pip finds its wheels there and nowhere else."""
    (folder / "wheels").mkdir()
    for wheel in wheels.iterdir():
        os.link(wheel, folder / "wheels" / wheel.name)
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nCOPY wheels /wheels\nCOPY pip.conf /etc/pip.conf\n")
    docker("build", "-q", "-t", first_image(), str(folder))
