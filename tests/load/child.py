"""Child: a process that makes load and does what it is told on its standard input.

In: a bench, a module, lines. Out: what it said last, one JSON object a line. Promise: what fails there fails here too.
"""

import subprocess
import sys
from collections.abc import Mapping

import msgspec

from tests.faults.bench import Bench


class Child:
    """One process; it sends through the producers' link."""

    def __init__(self, bench: Bench, name: str, module: str, *arguments: str, **env: str) -> None:
        self._bench = bench
        self._name = name
        self._said = bench.pipeline.folder / f"{name}.said"
        settings = bench.pipeline.env | {"REDIS_URL": f"redis://{bench.producer_link.address}/0"} | env
        command = (sys.executable, "-m", module, *arguments)
        with self._said.open("wb") as said, bench.pipeline.log(name).open("wb") as log:
            process = subprocess.Popen(command, env=settings, stdin=subprocess.PIPE, stdout=said, stderr=log)
        assert process.stdin is not None
        self._process = bench.pipeline.processes[name] = process
        self._stdin = process.stdin

    def tell(self, line: str) -> None:
        """Write one line to it."""
        self._stdin.write(f"{line}\n".encode())
        self._stdin.flush()

    def said(self) -> Mapping[str, int]:
        """Return what it said last; nothing before its first line."""
        lines = self._said.read_text().splitlines()
        return msgspec.json.decode(lines[-1], type=dict[str, int]) if lines else {}

    def finish(self, deadline_s: float) -> Mapping[str, int]:
        """Wait for the end it was told; returns what it said last."""
        code = self._process.wait(deadline_s)
        assert code == 0, f"{self._name} failed: {self._bench.pipeline.log(self._name).read_text()[-2000:]}"
        del self._bench.pipeline.processes[self._name]
        return self.said()

    def close(self) -> None:
        """Let go of it; if it runs, it is ended with the bench."""
        self._stdin.close()
