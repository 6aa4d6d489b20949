"""Alert rules, by promtool: each fires when it should and stays silent when it should; its page exists."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring/prometheus/rules"
THRESHOLDS = ROOT / "optimizers/thresholds/default.toml"
CASES: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "alert_cases.yml").read_text())
ALWAYS = "Watchdog"
"""It has no silent case."""


def rules(folder: Path = RULES) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return every alerting rule with its file, by name."""
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    assert rule["alert"] not in found, "an alert's name is its identity"
                    found[rule["alert"]] = (path, rule)
    return found


ALERTS = rules()
OF_LOGS = rules(ROOT / "monitoring/loki/rules/fake")
"""Evaluated by Loki: promtool cannot read them."""


def test_every_alert_has_both_cases() -> None:
    assert len(ALERTS) >= 40
    assert CASES.keys() == ALERTS.keys()
    assert {name for name, cases in CASES.items() if "silent" not in cases} == {ALWAYS}
    assert all("fires" in cases for cases in CASES.values())


def test_every_calibrated_metric_is_compared_and_missed() -> None:
    """By name: a threshold that is defined and that no alert reads would be learnt for nobody."""
    defined = {one["name"] for one in tomllib.loads(THRESHOLDS.read_text())["threshold"]}
    expressions = {name: rule["expr"] for name, (_, rule) in ALERTS.items()}
    missed = set(re.findall(r'streamgauge_threshold\{metric="(\w+)"', expressions.pop("ThresholdsMissing")))
    compared = set(re.findall(r'streamgauge_threshold\{metric="(\w+)"', " ".join(expressions.values())))
    assert missed == compared == defined


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_alert_fires_and_stays_silent(name: str, tmp_path: Path) -> None:
    path, _ = ALERTS[name]
    tests = [_case(name, how, case) for how, case in CASES[name].items()]
    file = tmp_path / "test.yml"
    every = next(iter(CASES[name].values())).get("every", 60)
    file.write_text(yaml.safe_dump({"rule_files": [str(path)], "evaluation_interval": f"{every}s", "tests": tests}))
    run = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, f"{name}\n{run.stdout}\n{run.stderr}"


def _case(name: str, how: str, case: dict[str, Any]) -> dict[str, Any]:
    firing = [{"labels": "{}", "value": case.get("count", 1)}] if how.startswith("fires") else []
    look = {"eval_time": case["at"], "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'}
    return {
        "name": f"{name} {how}",
        "interval": f"{case.get('every', 60)}s",
        "input_series": [{"series": series, "values": values} for series, values in case["series"].items()],
        "promql_expr_test": [{**look, "exp_samples": firing}],
    }


@pytest.mark.parametrize("name", sorted(ALERTS | OF_LOGS))
def test_alert_names_its_severity_family_and_runbook(name: str) -> None:
    assert not ALERTS.keys() & OF_LOGS.keys()
    _, rule = (ALERTS | OF_LOGS)[name]
    assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}
    assert rule["labels"].keys() & {"family", "escalation"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    text = (ROOT / page).read_text()
    if anchor:
        headings = [re.sub(r"[^\w-]", "", line.lower()) for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
        assert anchor in headings, f"{page} has no section {anchor}"
