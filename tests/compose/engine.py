"""A Docker engine of the test's own: data root, socket, network namespace, all gone when it is.

In: a folder. Out: `docker` and `compose`. Promise: it runs inside the namespaces that `__main__` made, so that its
bridges, rules and published ports are seen by nobody else; `close` ends it, and it must have nothing left running.
"""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from tests.watching import binary

START_S: Final = 60.0
COMMAND_S: Final = 600.0
CGROUP: Final = "/streamgauge-compose-test"


class Engine:
    """dockerd, and the commands that talk to it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "dockerd.log"
        self.socket = home / "docker.sock"
        self.data_root = home / "docker"
        self.environ = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"}
        self._process: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Start it and wait until it answers."""
        places = {"data-root": self.data_root, "exec-root": self.home / "exec", "pidfile": self.home / "pid"}
        command = [binary("dockerd"), "--host", f"unix://{self.socket}", "--cgroup-parent", CGROUP]
        command += [f"--{name}={path}" for name, path in places.items()]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while subprocess.run(["docker", "info"], env=self.environ, capture_output=True, timeout=START_S).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"dockerd does not answer:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.2)

    def docker(self, *arguments: str, text: str | None = None) -> str:
        """Run a docker command that must succeed; returns what it prints."""
        return self._run(["docker", *arguments], self.home, text)

    def logs(self, container: str) -> str:
        """Return the last lines of a container, both of its streams."""
        command = ["docker", "logs", "--tail", "25", container]
        return subprocess.run(
            command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=COMMAND_S
        ).stdout

    def compose(self, project: Path, *arguments: str) -> str:
        """Run docker-compose in a project's folder; `--compatibility` gives limits and replicas their meaning."""
        return self._run([binary("docker-compose"), "--compatibility", "-p", "sg", *arguments], project, None)

    def _run(self, command: list[str], cwd: Path, text: str | None) -> str:
        done = subprocess.run(
            command, env=self.environ, cwd=cwd, input=text, capture_output=True, text=True, timeout=COMMAND_S
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout

    def left(self) -> list[str]:
        """Name every container, volume and network that is there and is not the engine's own."""
        found = [f"container {name}" for name in self.docker("ps", "-aq").split()]
        found += [f"volume {name}" for name in self.docker("volume", "ls", "-q").split()]
        networks = set(self.docker("network", "ls", "--format", "{{.Name}}").split()) - {"bridge", "host", "none"}
        return found + [f"network {name}" for name in networks]

    def close(self) -> None:
        """End it; what ran in it ends with it."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(120)
        for controller in Path("/sys/fs/cgroup").glob(f"*{CGROUP}"):
            controller.rmdir()
