"""Logs from a service's line to an alert: what is written, how Alloy labels it, what Loki's rules and Grafana ask for.

Debian has neither Loki nor Alloy, so their files are read and not run; the services of the compose file are run as it
says. `make compose-test` looks at what Docker really writes.
"""

import io
import json
import logging
import re
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from streamgauge.logs import JsonFormatter
from streamgauge.processes import free_port, wait_until
from streamgauge.stack import answers, get
from tests.composed import command, compose, ours
from tests.pipeline import Pipeline
from tests.watching import MONITORING

ALLOY: Final = (MONITORING / "alloy/config.alloy").read_text()
RULES: Final = [
    rule
    for group in yaml.safe_load((MONITORING / "loki/rules/fake/logs.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS: Final = [
    target["expr"]
    for panel in json.loads((MONITORING / "grafana/dashboards/logs.json").read_text())["panels"]
    for target in panel["targets"]
]
QUERIES: Final = [*PANELS, *(rule["expr"] for rule in RULES)]
MATCHER: Final = r'(\w+)\s*(=~|!=|!~|=)\s*"((?:[^"\\]|\\.)*)"'
NGINX: Final = (MONITORING.parent / "nginx/nginx.conf").read_text()
LOGQL: Final = {"sum", "count_over_time", "absent_over_time", "json", "__error__"}
LEVELS: Final = {"INFO", "WARNING", "ERROR", "CRITICAL"}

Labels = Mapping[str, str]


def selectors(query: str) -> list[str]:
    """Return what stands in braces: which lines a query reads."""
    return re.findall(r"\{([^{}]*)\}", re.sub(r"\\(.)", r"\1", query))


def matches(selector: str, labels: Labels) -> bool:
    """Whether lines with these labels are selected; regular expressions match as a whole."""
    told = re.findall(MATCHER, selector)
    assert re.sub(MATCHER, "", selector).strip(", ") == "", f"not understood: {selector}"
    return all(_holds(labels.get(name, ""), how, text) for name, how, text in told)


def _holds(value: str, how: str, text: str) -> bool:
    is_same = re.fullmatch(text, value) is not None if "~" in how else text == value
    return is_same is not how.startswith("!")


def labelled(services: Iterable[str]) -> list[Labels]:
    """Return the labels of each service's lines, as Alloy gives them."""
    found: list[Labels] = []
    (chosen,) = selectors(re.findall(r"selector = (.*)", ALLOY)[0])
    for name in services:
        if matches(chosen, {"service": name}):
            found += [{"job": "streamgauge", "service": name, "level": level} for level in LEVELS]
        else:
            found.append({"job": "containers", "service": name})
    return found


def test_alloy_names_a_service_by_a_label_that_docker_writes() -> None:
    found = compose()
    written = {json.dumps(service["logging"]) for service in found["services"].values()}
    (logging_of_all,) = (json.loads(text) for text in written)
    assert logging_of_all["driver"] == "json-file"
    (read,) = re.findall(r'service = "attrs\.\\"([\w.]+)\\""', ALLOY)
    assert read == logging_of_all["options"]["labels"] == "com.docker.compose.service"


def test_alloy_reads_levels_of_all_services_of_ours_and_of_no_other() -> None:
    found = compose()
    with_level = {labels["service"] for labels in labelled(found["services"]) if "level" in labels}
    # `migrate` runs once and talks to the person who looks.
    assert with_level == ours(found).keys() - {"migrate"}
    assert not any("level" in labels for labels in labelled(["streamgauge-api-1-1", "sg_aggregator_1"]))


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_finds_lines_of_some_service(query: str) -> None:
    written = labelled(compose()["services"])
    assert selectors(query)
    for selector in selectors(query):
        assert any(matches(selector, labels) for labels in written), selector
        assert not any(matches(selector, labels) for labels in labelled(["streamgauge-api-1-1"])), selector


def faults_of_syntax(query: str) -> list[str]:
    """Say what is no LogQL of the kind we use: brackets, functions, ranges, labels. Loki itself is not at hand."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    found: list[str] = []
    opened: list[str] = []
    for sign in bare:
        if sign in "([{":
            opened.append(sign)
        elif sign in ")]}" and (not opened or opened.pop() + sign not in ("()", "[]", "{}")):
            found.append(f"{sign} closes nothing")
    found += [f"{sign} is not closed" for sign in opened]
    found += [
        f"[{one}] is no range" for one in re.findall(r"\[([^\]]*)\]", bare) if not re.fullmatch(r"\d+[smhd]", one)
    ]
    grouped = {name.strip() for names in re.findall(r"\bby \(([^)]*)\)", bare) for name in names.split(",")}
    fields = re.findall(r'"(\w+)":', NGINX) if "| json" in bare else []
    found += [f"no line has the label {name}" for name in grouped - {"job", "service", "level", *fields}]
    rest = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)", " ", bare)
    found += [f"{word} is not known" for word in re.findall(r"[a-z_]+", rest) if word not in LOGQL]
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_is_logql_as_far_as_can_be_told(query: str) -> None:
    assert faults_of_syntax(query) == []
    for right, wrong in (("{", ""), ("[", ""), ("count_over_time", "count_over"), ("by (", "by (pod, "), ("m]", "]")):
        if right in query:
            assert faults_of_syntax(query.replace(right, wrong, 1)), wrong


def test_levels_are_the_ones_that_services_write() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    for level in LEVELS:
        logger.log(getattr(logging, level), "one")
    assert {json.loads(line)["level"] for line in stream.getvalue().splitlines()} == LEVELS
    asked = {
        level for query in QUERIES for group in re.findall(r'level=~"([A-Z|]+)', query) for level in group.split("|")
    }
    assert asked == LEVELS - {"INFO"}
    assert 'expressions = {level = "level"}' in ALLOY


@pytest.mark.timeout(90)
def test_an_api_replica_logs_json_from_its_first_line_to_its_last(tmp_path: Path) -> None:
    """Started by the command of the compose file, but for its address."""
    words = command(compose()["services"]["api-1"])
    port = free_port()
    changes = {"0.0.0.0": "127.0.0.1", "8000": str(port)}
    assert changes.keys() <= set(words)
    words = [changes.get(word, word) for word in words]
    with Pipeline(tmp_path, "postgresql://nobody@127.0.0.1:1/none", f"redis://127.0.0.1:{free_port()}") as pipeline:
        pipeline.start("api", sys.executable, "-m", *words)
        assert wait_until(answers(port, "/readyz"), 30), pipeline.log("api").read_text()
        assert get(port, "/listing/1")[0] == 503
        pipeline.stop("api", signal.SIGTERM)
        lines = pipeline.log("api").read_text().splitlines()
    told: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert all({"at", "level", "event", "logger"} <= one.keys() and one["level"] in LEVELS for one in told)
    events = " ".join(one["event"] for one in told)
    assert "Started server process" in events
    assert "GET /listing/1" in events
    assert "Finished server process" in events


def test_alloy_reads_no_docker_socket() -> None:
    assert "docker.sock" not in ALLOY
    assert ALLOY.count("{") == ALLOY.count("}")
    receivers = set(re.findall(r"(loki\.\w+\.\w+)\.receiver", ALLOY))
    blocks = {f"{kind}.{name}" for kind, name in re.findall(r'^([\w.]+) "(\w+)" \{', ALLOY, re.MULTILINE)}
    assert receivers <= blocks
    # A label for the path would make a stream of each container.
    assert re.search(r'stage\.label_drop \{\s+values = \["filename"\]', ALLOY)


def test_logs_are_deleted_in_time() -> None:
    loki = yaml.safe_load((MONITORING / "loki/loki.yml").read_text())
    assert loki["compactor"]["retention_enabled"] is True
    assert loki["compactor"]["delete_request_store"]
    assert loki["limits_config"]["retention_period"] == "720h"
