"""The page in a real browser while real servers die: it names what is away, and all is well again once it is back."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgauge.embedded import RedisServer
from tests.browser import BINARY, Browser
from tests.integration.test_page import EMIT, browser
from tests.pipeline import Pipeline
from tests.servers import redis_binaries

pytestmark = pytest.mark.skipif(not BINARY, reason="chromium is not installed")

_ = browser
NO_AGGREGATOR = "no aggregator has a current heartbeat"


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that nobody else uses: it is killed."""
    server = RedisServer(tmp_path / "redis", binary=next(iter(redis_binaries().values())))
    server.open()
    yield server
    server.close()


def component(browser: Browser, name: str) -> str:
    """The state of a component as its row says it, without its sign."""
    rows = f"[...document.querySelectorAll('#components tbody tr')].find(r => r.cells[0].innerText === '{name}')"
    return browser.evaluate(f"({rows})?.cells[1].innerText ?? ''").split(" ")[-1]


def state_of(browser: Browser) -> str:
    """The headline and the reasons below it."""
    return f"{browser.text('.headline')} {browser.text('.state')}"


def test_killed_redis_and_killed_aggregator_are_told_and_their_return_too(
    browser: Browser, dsn: str, own_redis: RedisServer, tmp_path: Path
) -> None:
    with Pipeline(tmp_path, dsn, own_redis.url) as pipeline:
        pipeline.aggregator()
        pipeline.exporter()
        pipeline.emitter(EMIT, STREAMGAUGE_SERVICE="shop")
        browser.visit(f"http://127.0.0.1:{pipeline.port}/")
        browser.wait(lambda: "All is well" in browser.text(".headline"), "all is well")

        pipeline.stop("aggregator", signal.SIGKILL)
        browser.wait(lambda: component(browser, "aggregators") == "down", "the aggregator is missed", 25)
        assert NO_AGGREGATOR in state_of(browser)
        assert "Needs a look" in browser.text(".headline")
        pipeline.aggregator("aggregator 2")
        # Degraded, not ok: the one that was killed is still expected for a while.
        browser.wait(lambda: component(browser, "aggregators") == "degraded", "another one is seen")
        assert NO_AGGREGATOR not in state_of(browser)

        own_redis.kill()
        browser.wait(lambda: component(browser, "redis") == "down", "Redis is missed")
        assert "All is well" not in browser.text(".headline")
        assert "redis" in state_of(browser)
        own_redis.open()
        browser.wait(lambda: component(browser, "redis") == "ok", "Redis is back")
        assert browser.evaluate("performance.getEntriesByType('navigation').length") == 1
        assert browser.complaints == []


def producer(browser: Browser, service: str) -> dict[str, str]:
    """The row of a service's producer: its cells by their labels."""
    return browser.evaluate(
        "Object.fromEntries([...([...document.querySelectorAll('#producers tbody tr')]"
        f".find(r => r.cells[0].innerText.startsWith('{service}/'))?.cells ?? [])]"
        ".map(c => [c.dataset.label ?? 'producer', c.innerText]))"
    )


def test_a_producer_that_stalls_is_named_with_how_long_it_was_not_heard_of(
    browser: Browser, dsn: str, redis_url: str, tmp_path: Path
) -> None:
    """Beside one that goes on, in the same shard; it is well again when it wakes."""
    quick = {"STREAMGAUGE_SHARDS": "1", "STREAMGAUGE_LIVE_S": "3"}
    with Pipeline(tmp_path, dsn, redis_url, **quick) as pipeline:
        pipeline.aggregator()
        pipeline.exporter()
        pipeline.emitter(EMIT, "emitter 1", STREAMGAUGE_SERVICE="shop")
        stalled = pipeline.emitter(EMIT, "emitter 2", STREAMGAUGE_SERVICE="stalled")
        browser.visit(f"http://127.0.0.1:{pipeline.port}/")
        browser.wait(lambda: producer(browser, "stalled").get("verdict") == "complete", "both are heard of", 30)
        accepted = int(producer(browser, "stalled")["accepted"].replace(",", ""))
        assert accepted > 0

        stalled.send_signal(signal.SIGSTOP)
        browser.wait(lambda: "unclean" in producer(browser, "stalled").get("state", ""), "it is missed", 30)
        found = producer(browser, "stalled")
        assert found["verdict"] == "ended without a farewell; complete"
        assert producer(browser, "shop")["verdict"] == "complete"
        assert "ended without a farewell" in state_of(browser)
        browser.wait(lambda: seconds(producer(browser, "stalled")) >= 5, "its age grows", 30)
        assert seconds(producer(browser, "shop")) < 5

        stalled.send_signal(signal.SIGCONT)
        browser.wait(lambda: producer(browser, "stalled").get("verdict") == "complete", "it is heard of again", 30)
        browser.wait(lambda: "All is well" in browser.text(".headline"), "all is well")


def seconds(row: dict[str, str]) -> int:
    """How long ago a producer was heard of, as the page says it; 0 for less than it counts."""
    found = re.search(r"(\d+) s", row.get("heard of", ""))
    return int(found[1]) if found else 0
