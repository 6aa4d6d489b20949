"""The page in a real browser while real servers die: it names what is away, and all is well again once it is back."""

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
