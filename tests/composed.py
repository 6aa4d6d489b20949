"""docker-compose.scale.yml for tests that run a service as it says: its services, commands, settings and secrets.

In: the file. Out: what a container would get, with paths of this machine where the file mounts something of ours.
Promise: nothing is made up: what is not in the file is not in the answer.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from streamgauge.hardening.files import environment, interpolate
from tests.watching import ROOT

FILE: Final = ROOT / "docker-compose.scale.yml"

Compose = dict[str, Any]


def compose() -> Compose:
    """Return the file, parsed anew; variables have their defaults."""
    return yaml.safe_load(interpolate(FILE.read_text(), {}))


def bootstrap(folder: Path) -> str:
    """Make secrets and certificates in a folder; returns what the script says."""
    command = [ROOT / "scripts/bootstrap.sh", "api.example.org"]
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "SECRETS": str(folder)}
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=60).stderr


def ours(found: Compose) -> dict[str, Any]:
    """Return the services of our image, by name."""
    return {name: one for name, one in found["services"].items() if one["image"].startswith("streamgauge:")}


def command(service: Mapping[str, Any]) -> list[str]:
    """Return the command of a service."""
    return [at_home(service, str(word)) for word in service["command"]]


def settings(service: Mapping[str, Any]) -> dict[str, str]:
    """Return the STREAMGAUGE_ settings of a service, but those that are read from a secret."""
    told = {name: value for name, value in environment(service).items() if name.startswith("STREAMGAUGE_")}
    return {name: at_home(service, value) for name, value in told.items() if "/run/secrets/" not in value}


def at_home(service: Mapping[str, Any], path: str) -> str:
    """Return where a path inside a container is mounted from, if it is a file of ours; else the text as it is."""
    for volume in service.get("volumes", []):
        source, target = volume.split(":")[:2]
        if path.startswith(target) and source.startswith("./"):
            return str(ROOT / source) + path.removeprefix(target)
    return path
