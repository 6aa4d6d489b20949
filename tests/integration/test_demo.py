"""`streamgauge up --demo`: what is ill on purpose is found, is over its threshold, and leads to advice."""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest

import streamgauge
from streamgauge.processes import wait_until
from streamgauge.stack import DEMO_SETTINGS, get
from tests.integration.test_up import Home, home, up

pytestmark = pytest.mark.timeout(360)

_ = home
SHOWN_S = 240.0
"""A minute is rolled up 90 s after its end, and only then judged."""


def read(home: Home, path: str) -> Any:
    return json.loads(get(home.exporter_port, path)[1] or "{}")


def shown(home: Home, path: str, is_there: Callable[[Any], bool]) -> bool:
    return wait_until(lambda: is_there(read(home, path)), SHOWN_S)


def over(health: Any) -> set[tuple[str, str]]:
    """The alerts over their thresholds: metric and severity."""
    found = [each for each in health.get("components", []) if each["name"] == "thresholds"]
    return {(each["metric"], each["severity"]) for one in found for each in one["facts"].get("over", [])}


def test_demo_shows_alerts_findings_and_advice_in_its_first_minutes(home: Home) -> None:
    home.env["STREAMGAUGE_COLLECT_METRICS_INTERVAL_S"] = "10"
    wanted = {("demo_orders_failed_ratio", "critical"), ("demo_checkout_p95_seconds", "warn")}
    with up(home, "--demo", "--no-traffic") as (process, said):
        assert shown(home, "/health/detailed", lambda health: wanted <= over(health)), read(home, "/health/detailed")
        page = get(home.exporter_port, "/")[1].decode()
        assert "demo_orders_failed_ratio" in page
        assert shown(home, "/metrics/database", lambda found: "streamgauge_demo." in json.dumps(found))
        assert shown(home, "/metrics/performance", advises_the_demo), read(home, "/metrics/performance")
    assert process.returncode == 0, "\n".join(said)
    assert home.leftovers() == []


def advises_the_demo(performance: Any) -> bool:
    """From the measured lag of the demo's own event loop."""
    return any(
        each["kind"] == "event_loop_lag" and each["target"] == "demo" and each["evidence"]["lag_p99_s"] > 0.1
        for each in performance.get("recommendations", [])
    )


def test_demo_keeps_the_shipped_thresholds() -> None:
    """Word for word: a threshold added to the shipped file must come into the demo too."""
    shipped = files("optimizers.thresholds").joinpath("default.toml").read_text()
    demo = files(streamgauge).joinpath("demo_thresholds.toml").read_text()
    assert demo.startswith(shipped)
    assert DEMO_SETTINGS["STREAMGAUGE_THRESHOLDS_FILE"].endswith("demo_thresholds.toml")
