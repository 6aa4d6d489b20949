"""`streamgauge export`: one exporter, until SIGTERM or Ctrl-C."""

import argparse

from database.settings import read_settings
from exporter.serve import run as serve
from exporter.settings import ExporterSettings
from streamgauge import logs
from streamgauge.commands import Subparsers


def add_parser(sub: Subparsers) -> None:
    """Declare the options; everything else is read from the environment."""
    sub.add_parser("export", help="run one exporter")


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    logs.configure()
    serve(read_settings(ExporterSettings))
    return 0
