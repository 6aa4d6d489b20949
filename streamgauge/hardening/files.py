"""Files of a deployment: the compose file and the configuration it mounts.

In: a directory. Out: what rules ask of it. Promise: a file is read once; one that is not there is MissingFile.
"""

import re
import stat
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

import yaml

COMPOSE: Final = "docker-compose.scale.yml"


class MissingFile(Exception):
    """A file that must be there; the text is its name."""


class Files:
    """What stands under the root of a deployment."""

    def __init__(self, root: Path, compose: str = COMPOSE) -> None:
        self.root = root
        self._compose = compose

    def path(self, name: str) -> Path:
        """Return a file; MissingFile when there is none."""
        found = self.root / name
        if not found.is_file():
            raise MissingFile(name)
        return found

    def text(self, name: str) -> str:
        """Return a file's text."""
        return self.path(name).read_text()

    @cached_property
    def compose(self) -> Mapping[str, Any]:
        """The compose file, with the variables of `.env` beside it."""
        file = self.root / ".env"
        lines = file.read_text().splitlines() if file.is_file() else []
        values = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
        return cast("Mapping[str, Any]", yaml.safe_load(interpolate(self.text(self._compose), values)))

    @property
    def services(self) -> Mapping[str, Mapping[str, Any]]:
        """Its services, by name."""
        return self.compose["services"]

    def certificate_folders(self) -> list[Path]:
        """Return the folders of secrets that services mount, or mount a file of: certificates and keys are there."""
        found: set[Path] = set()
        for service in self.services.values():
            for volume in service.get("volumes") or ():
                source = self.root / str(volume).partition(":")[0]
                if source.is_relative_to(self.root / "secrets"):
                    found.add(source.parent if source.suffix else source)
        return sorted(found)

    @cached_property
    def postgresql(self) -> Mapping[str, str]:
        """Settings of postgresql.conf, without quotes."""
        lines = (line.partition("#")[0] for line in self.text("database/postgresql.conf").splitlines())
        pairs = (re.match(r"\s*(\w[\w.]*)\s*=?\s*(.+?)\s*$", line) for line in lines)
        return {pair[1].lower(): pair[2].strip("'") for pair in pairs if pair}

    @cached_property
    def hba(self) -> list[list[str]]:
        """Lines of pg_hba.conf, as words."""
        lines = (line.partition("#")[0].split() for line in self.text("database/pg_hba.conf").splitlines())
        return [words for words in lines if words]

    def redis(self, name: str) -> dict[str, list[str]]:
        """Return a configuration of Redis: every value of each directive, in lower case its name."""
        found: dict[str, list[str]] = {}
        for line in self.text(name).splitlines():
            words = line.split(None, 1)
            if words and not words[0].startswith("#"):
                found.setdefault(words[0].lower(), []).append(words[1].strip() if len(words) > 1 else "")
        return found


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """Put values in the place of ${NAME} and ${NAME:-default}, as Compose and Dockerfiles do."""
    return re.sub(r"(?<!\$)\$\{(\w+)(?::-([^}]*))?\}", lambda found: values.get(found[1]) or found[2] or "", text)


def too_open(path: Path) -> str:
    """Return the mode of a file that anybody but its owner may read, or anybody may write; empty when none may."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return f"{mode:04o}" if mode & ~0o400 else ""


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment of a service, in either of its forms."""
    given: Any = service.get("environment") or {}
    if isinstance(given, list):
        pairs = (str(one).partition("=") for one in cast("list[Any]", given))
        return {name: value for name, _, value in pairs}
    return {str(name): "" if value is None else str(value) for name, value in cast("dict[Any, Any]", given).items()}
