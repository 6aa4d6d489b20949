"""`streamgauge aggregate`: one aggregator, until SIGTERM or Ctrl-C; it drains before it ends."""

import argparse

import uvloop

from aggregator.memory import collect_rarely, keep_freed
from aggregator.service import serve
from aggregator.settings import AggregatorSettings
from database.settings import read_settings
from optimizers.database_optimizer import require_settings
from optimizers.thresholds.definitions import read_definitions
from streamgauge import logs
from streamgauge.commands import Subparsers


def add_parser(sub: Subparsers) -> None:
    """Declare the options; everything else is read from the environment."""
    sub.add_parser("aggregate", help="run one aggregator")


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    logs.configure()
    keep_freed()
    settings = read_settings(AggregatorSettings)
    require_settings(settings)
    read_definitions(settings.streamgauge_thresholds_file)
    collect_rarely()
    uvloop.run(serve(settings))
    return 0
