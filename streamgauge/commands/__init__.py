"""The commands of `streamgauge`: one module each, with `add_parser(sub)` and `run(args) -> exit code`.

Adding a command: a file in this folder and a line in COMMANDS. Modules are imported when their command is
called, so that `streamgauge up` does not pay for what `streamgauge replay` needs.
"""

from argparse import ArgumentParser, _SubParsersAction  # pyright: ignore[reportPrivateUsage]
from typing import Final, TypeAlias

Subparsers: TypeAlias = "_SubParsersAction[ArgumentParser]"
"""What `add_parser` gets: `parser = sub.add_parser(name, help=...)`."""

COMMANDS: Final = {
    "up": "run everything on this machine: servers, a reference API with traffic, aggregator, exporter",
    "down": "stop what `up` started",
    "status": "show what `up` runs and how far the pipeline is",
    "check-config": "check settings, and the servers that they name",
    "migrate": "bring the database schema to the newest version",
    "aggregate": "run one aggregator: consume, fold, commit, acknowledge",
    "export": "run one exporter: /metrics, health, JSON",
    "alive": "whether an aggregator of this machine has a current heartbeat",
    "loadtest": "push synthetic events through the pipeline and follow each to its commit",
    "replay": "compute windows again from the stream; compare them with what is stored",
    "tail": "show the batches that arrive in the streams",
    "explain": "show which batches make up a series in a window",
    "purge": "delete a load-test run and refuse what still arrives of it",
    "forget": "delete series, with all they hold",
    "jobs": "show the schedule and its history; run a job now",
    "thresholds": "show alert thresholds and their changes; pin or revert one",
    "optimize": "check the databases; apply one finding",
    "audit": "prove that every accepted event is accounted for; name what is not",
}
"""Name -> one line of help; the module is `streamgauge.commands.<name>`, dashes as underscores."""
