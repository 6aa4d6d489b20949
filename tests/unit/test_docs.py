"""The documentation says what the code does: metrics, glossary, links."""

import re
from pathlib import Path

import pytest

from contract.self_metrics import CATALOGUE

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
