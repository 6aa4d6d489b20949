"""Grafana: Debian has none, so its files are checked and not run: they parse and name each other rightly.

That every PromQL query of a dashboard reads metrics that exist is checked where those are scraped; its queries of logs
in test_logs.py.
"""

import json
from typing import Any

import yaml

from tests.watching import MONITORING

DASHBOARDS = sorted((MONITORING / "grafana/dashboards").glob("*.json"))
SOURCES = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/streamgauge.yml").read_text())["datasources"]


def boards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in DASHBOARDS]


def test_dashboards_are_whole() -> None:
    assert [path.stem for path in DASHBOARDS] == ["api", "logs", "pipeline", "postgresql", "redis"]
    assert len({board["uid"] for board in boards()}) == len(DASHBOARDS)
    known = {source["uid"]: source["type"] for source in SOURCES}
    for board in boards():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids)) > 0
        for panel in board["panels"]:
            assert panel["title"]
            assert panel["targets"]
            for target in panel["targets"]:
                assert target["expr"]
                assert known[target["datasource"]["uid"]] == target["datasource"]["type"]


def test_no_two_panels_overlap() -> None:
    for board in boards():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
            assert not taken & cells, (board["title"], panel["title"])
            assert max(x for x, _ in cells) < 24
            taken |= cells


def test_dashboards_cannot_be_changed_in_the_browser() -> None:
    text = (MONITORING / "grafana/provisioning/dashboards/streamgauge.yml").read_text()
    (provider,) = yaml.safe_load(text)["providers"]
    assert (provider["allowUiUpdates"], provider["disableDeletion"]) == (False, True)
    assert all(board["editable"] is False for board in boards())
