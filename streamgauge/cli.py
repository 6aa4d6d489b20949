"""The command `streamgauge`: picks a command, runs it, turns its failure into an exit code.

Promise: 0 fine, 1 the command found a fault or could not do its work, 2 wrong use or settings (the setting is
named); a failure that was foreseen prints one line, not a traceback.
"""

import argparse
import importlib
import sys
from types import ModuleType
from typing import Final

from streamgauge.commands import COMMANDS
from streamgauge.processes import StartError

EXIT_FAULT: Final = 1
EXIT_USAGE: Final = 2
AWAY_SQLSTATES: Final = ("08", "28", "3D", "53", "57")
"""Connection, access, no such database, resources, shutdown: what PostgreSQL says of itself, not of a statement."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        args = _parser(arguments).parse_args(arguments)
        return int(args.run(args))
    except MissingExtra as error:
        return _say(str(error), EXIT_USAGE)
    except StartError as error:
        return _say(str(error), EXIT_FAULT)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        code, text = _foreseen(error)
        if code is None:
            raise
        return _say(text, code)


class MissingExtra(Exception):
    """The command needs packages that are not installed."""


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamgauge", description="Replicas emit, the stream holds, the aggregator commits, the exporter shows."
    )
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, text in COMMANDS.items():
        if name != chosen:
            sub.add_parser(name, help=text)
            continue
        module = _load(name)
        module.add_parser(sub)
        sub.choices[name].set_defaults(run=module.run)
    return parser


def _load(name: str) -> ModuleType:
    module = f"streamgauge.commands.{name.replace('-', '_')}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("streamgauge", "contract", "database"):
            raise
        raise MissingExtra(
            f"`streamgauge {name}` needs the package {error.name}: pip install '.[embedded]' in a checkout of it"
        ) from error


def _foreseen(error: Exception) -> tuple[int | None, str]:
    """Return exit code and line of a failure that is no bug; (None, "") of any other.

    Named by class because their modules need an extra that this command may do without.
    """
    names = {each.__name__ for each in type(error).__mro__}
    if "SettingsError" in names:
        return EXIT_USAGE, f"bad setting: {error}"
    if "SchemaError" in names:
        return EXIT_FAULT, str(error)
    if "ClientConfigurationError" in names:
        return EXIT_USAGE, f"bad setting: POSTGRES_DSN: {error}"
    state = str(getattr(error, "sqlstate", None) or "")
    if isinstance(error, OSError | TimeoutError) or state.startswith(AWAY_SQLSTATES) or "RedisError" in names:
        # Not before: this needs an extra, which whoever asked a server has.
        from streamgauge.reach import describe_away

        return EXIT_FAULT, f"a server is away or refuses: {describe_away(error)}"
    return None, ""


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"streamgauge: {text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
