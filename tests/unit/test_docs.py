"""The documentation says what the code does: metrics, glossary, links."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from aggregator.schedule_settings import ScheduleSettings
from aggregator.settings import AggregatorSettings
from contract.self_metrics import CATALOGUE
from database.settings import read_duration_s
from exporter.settings import ExporterSettings
from optimizers.jobs import JOBS
from streamgauge.commands import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_metrics_page_lists_the_catalogue_in_order() -> None:
    """Each self-metric has its row with kind, labels, meaning and loss mark, and there are no others."""
    rows = re.findall(
        r"^\| `(streamgauge_\w+)` \| (\w+) \| (.+?) \| (.+) \|$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE
    )
    expected = [
        (m.name, m.kind.name.lower(), ", ".join(m.labels) or "-", m.help + (" **Loss.**" if m.loss else ""))
        for m in CATALOGUE
    ]
    assert rows == expected


def test_settings_page_tells_the_defaults() -> None:
    """Each setting of aggregator and exporter has its row, and the row its default."""
    shown: dict[str, str] = {}
    for names, defaults in re.findall(
        r"^\| (`[A-Z].*?`) \| (.+?) \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE
    ):
        named, values = re.findall(r"`(\w+)`", names), defaults.split(", ")
        shown |= zip(named, values * len(named) if len(values) == 1 else values, strict=True)
    for settings in (AggregatorSettings, ExporterSettings):
        for field, about in settings.model_fields.items():
            default: Any = about.default.get_secret_value() if isinstance(about.default, SecretStr) else about.default
            found = shown[field.upper()].strip("`")
            if field.startswith("streamgauge_retention"):
                found = str(read_duration_s(found))
            expected = str(default).lower() if isinstance(default, bool) else str(default).removesuffix(".0")
            assert found == ("-" if default in (None, "") else expected), field


def test_schedule_page_tells_every_job_with_its_interval() -> None:
    """As a setting has it: a job without one could not be told another."""
    unit_s = {"min": 60.0, "h": 3600.0}
    rows = re.findall(r"^\| `(\w+)` \| (\d+) (min|h) \|", (ROOT / "docs/schedule.md").read_text(), re.MULTILINE)
    told = {job: int(number) * unit_s[unit] for job, number, unit in rows}
    fields = ScheduleSettings.model_fields
    assert told == {job: fields[f"streamgauge_{job}_interval_s"].default for job in told}
    assert told.keys() == {"upkeep", "audit", *(job.name for job in JOBS)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that exists."""
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_term_of_the_glossary_is_defined_once() -> None:
    """One word, one meaning."""
    terms = re.findall(r"^\| ([a-z][^|]+?) \| ", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)[1:]
    words = [word.strip() for term in terms for word in term.split(",")]
    assert len(words) == len(set(words))


SNIPPETS = [
    (page, source)
    for page in PAGES
    for source in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize(("page", "source"), SNIPPETS, ids=[f"{p.name}-{i}" for i, (p, _) in enumerate(SNIPPETS)])
def test_snippets_run(page: Path, source: str) -> None:
    """What a page shows can be pasted; each runs in a process of its own, sending nowhere."""
    environment = {**os.environ, "STREAMGAUGE_DISABLED": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stderr}"


def test_make_help_is_in_columns() -> None:
    command = ["make", "--no-print-directory", "help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    found = {line: re.match(r"  make [a-z-]+ +", line) for line in done.stdout.splitlines()}
    assert len({match and match.end() for match in found.values()}) == 1, done.stdout


def test_commands_of_the_readme_exist() -> None:
    """Each command that the README names is one of the command line."""
    cells = re.findall(r"^\| (`streamgauge .*?`) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    named = {code.removeprefix("streamgauge ").split()[0] for cell in cells for code in re.findall(r"`([^`]+)`", cell)}
    assert named == set(COMMANDS)
