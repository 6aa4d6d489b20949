"""`scripts/validate-hardening`: the files of a deployment, or what runs, against every rule.

In: a directory, or addresses. Out: verdicts as text or JSON; exit code 0, 1 (something critical), 2 (wrong use).
"""

import argparse
import asyncio
import sys
from dataclasses import fields
from pathlib import Path
from typing import Final

from streamgauge.hardening import apps_rules, compose_rules, nginx_rules, postgres_rules, redis_rules
from streamgauge.hardening.files import COMPOSE, Files
from streamgauge.hardening.live import Live
from streamgauge.hardening.report import as_json, as_text, exit_code
from streamgauge.hardening.rule import Rule, Verdict, judge_files, judge_live

RULES: Final[tuple[Rule, ...]] = (
    *compose_rules.RULES,
    *postgres_rules.RULES,
    *redis_rules.RULES,
    *nginx_rules.RULES,
    *apps_rules.RULES,
)
HELP: Final = {
    "postgres": "DSN of a superuser",
    "redis": "URL of the streams' Redis, as a user that may read CONFIG and ACL",
    "sentinel": "URL of a Sentinel",
    "edge": "https://host:port of nginx",
    "edge_http": "http://host:port of nginx (default: port 80 of the edge's host)",
    "ca_file": "authority that signed the edge's certificate (default: the system's)",
    "grafana": "URL of Grafana",
    "prometheus": "URL of Prometheus",
    "docker": "name of the Compose project, whose containers the command docker is asked about",
}


def check_files(root: Path, compose: str = COMPOSE) -> list[Verdict]:
    """Judge every rule on files."""
    files = Files(root, compose)
    return [judge_files(rule, files) for rule in RULES]


async def check_live(live: Live) -> list[Verdict]:
    """Judge every rule on what runs, one after the other: a check shall not be a load."""
    return [await judge_live(rule, live) for rule in RULES]


def main(argv: list[str] | None = None) -> int:
    """Check once."""
    parser = argparse.ArgumentParser(
        prog="validate-hardening", description="Check a deployment against docs/hardening.md: id, severity, status."
    )
    parser.add_argument("--root", type=Path, default=Path(), help="directory of the files (default: this one)")
    parser.add_argument("--compose", default=COMPOSE, help="compose file under it (default: %(default)s)")
    parser.add_argument("--live", action="store_true", help="check what runs, at the addresses that are named")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    for field in fields(Live):
        parser.add_argument(f"--{field.name.replace('_', '-')}", metavar="X", help=HELP[field.name])
    args = parser.parse_args(argv)
    if args.live:
        verdicts = asyncio.run(check_live(Live(**{field.name: getattr(args, field.name) for field in fields(Live)})))
    elif not (args.root / args.compose).is_file():
        parser.error(f"--root: {args.root / args.compose} is no file")
    else:
        verdicts = check_files(args.root, args.compose)
    print((as_json if args.format == "json" else as_text)(verdicts))
    return exit_code(verdicts)


if __name__ == "__main__":
    sys.exit(main())
