"""Grafana, Loki and Alloy: Debian has none of them, so their files are checked and not run.

What is checked: they parse, name each other rightly, and say what our services really log. That every PromQL query of a
dashboard reads metrics that exist is checked where those are scraped.
"""

import io
import json
import logging
import re
from typing import Any

import yaml

from streamgauge.logs import JsonFormatter
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


def test_logs_are_deleted_in_time() -> None:
    loki = yaml.safe_load((MONITORING / "loki/loki.yml").read_text())
    assert loki["compactor"]["retention_enabled"] is True
    assert loki["compactor"]["delete_request_store"]
    assert loki["limits_config"]["retention_period"] == "720h"


def test_levels_are_the_ones_that_services_write() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning("one")
    logger.error("two")
    logger.critical("three")
    written = {json.loads(line)["level"] for line in stream.getvalue().splitlines()}
    rules = (MONITORING / "loki/rules/fake/logs.yml").read_text()
    queries = "".join(path.read_text() for path in DASHBOARDS if path.stem == "logs")
    asked = {level for group in re.findall(r'level=~\\?"([A-Z|]+)', rules + queries) for level in group.split("|")}
    assert asked == written
    alloy = (MONITORING / "alloy/config.alloy").read_text()
    assert 'expressions = {level = "level"}' in alloy


def test_alloy_reads_no_docker_socket() -> None:
    alloy = (MONITORING / "alloy/config.alloy").read_text()
    assert "docker.sock" not in alloy
    assert alloy.count("{") == alloy.count("}")
    receivers = set(re.findall(r"(loki\.\w+\.\w+)\.receiver", alloy))
    blocks = {f"{kind}.{name}" for kind, name in re.findall(r'^([\w.]+) "(\w+)" \{', alloy, re.MULTILINE)}
    assert receivers <= blocks
