"""The page in a real browser, on a real pipeline: what a person sees, and what happens while they look."""

import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
import redis

from streamgauge.processes import wait_until
from streamgauge.stack import answers
from tests.browser import BINARY, Browser
from tests.exporting import writer
from tests.pipeline import Pipeline
from tests.servers import Servers

pytestmark = pytest.mark.skipif(not BINARY, reason="chromium is not installed")

EMIT = """
import time
from streamgauge import Counter, Histogram
served = Counter("served_total", "Requests served.", ("route",))
took = Histogram("took_seconds", "Time taken.", ("route",), buckets=(0.01, 0.1, 1))
while True:
    served.labels("/a<b>").inc()
    took.labels("/a<b>").observe(0.004)
    took.labels("/c").observe(0.2)
    time.sleep(0.02)
"""
LEAKS = """
INSERT INTO findings (fingerprint, target, check_id, object, severity, evidence, recommendation, sql, rollback, tier,
                      remedy, state, first_seen, last_seen, runs_seen)
VALUES ('f1', 'monitoring', 'I6', 'public."leads<script>"', 'warn', '{"size_bytes": 4096}', 'It is invalid: drop it.',
        'DROP INDEX CONCURRENTLY public."leads<script>";', NULL, 'never', 'sql', 'open', now(), now(), 2)
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as found:
        found.screen(1280, 900)
        yield found


@pytest.fixture(scope="module")
def url(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pipeline that runs, and the address of its page."""
    database, server = servers.new_database(), servers.redis(None)
    with redis.Redis.from_url(server.url, protocol=2, socket_timeout=10) as client:
        client.flushall()
    with Pipeline(tmp_path_factory.mktemp("pipeline"), servers.postgres().dsn(database), server.url) as pipeline:
        pipeline.aggregator()
        pipeline.exporter()
        pipeline.emitter(EMIT, STREAMGAUGE_SERVICE="shop")
        assert wait_until(lambda: "took_seconds" in pipeline.scrape(), 20)
        yield f"http://127.0.0.1:{pipeline.port}/"
    servers.drop_database(database)


@pytest.fixture
def other_redis(servers: Servers) -> str:
    """Address of an empty database beside that of the pipeline which runs."""
    url = servers.redis(None).url.removesuffix("/0") + "/1"
    with redis.Redis.from_url(url, protocol=2, socket_timeout=10) as client:
        client.flushdb()
    return url


def number(browser: Browser, stage: str) -> int:
    """Return the large number of a stage; -1 while it is none."""
    text = browser.text(f"[data-number={stage}]").replace(",", "")
    return int(text) if text.isdigit() else -1


def charts(browser: Browser) -> int:
    """Return how many charts are drawn."""
    return browser.evaluate("document.querySelectorAll('.u-wrap canvas').length")


def test_one_look_tells_that_all_is_well(browser: Browser, url: str) -> None:
    browser.visit(url)
    browser.wait(lambda: "All is well" in browser.text(".headline"), "all is well")
    assert number(browser, "producers") == 1
    assert number(browser, "aggregators") == 1
    assert "shop" in browser.text("#completeness tbody") and "complete" in browser.text("#completeness tbody")
    browser.wait(
        lambda: browser.evaluate("document.querySelectorAll('.u-wrap canvas').length") >= 2, "charts are drawn"
    )
    assert browser.complaints == []
    assert {request.split("/", 3)[2] for request in browser.requests if request.startswith("http")} == {
        url.split("/")[2]
    }


def test_numbers_change_while_one_looks_and_not_while_paused(browser: Browser, url: str) -> None:
    browser.visit(url)
    before = browser.wait(
        lambda: number(browser, "database") > 0 and number(browser, "database"), "events are committed"
    )
    browser.wait(lambda: number(browser, "database") > before, "the number grows")
    assert browser.evaluate("performance.getEntriesByType('navigation').length") == 1
    browser.evaluate("document.getElementById('pause').click()")
    assert "paused" in browser.text("#live-text")
    assert browser.evaluate("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    held = number(browser, "database")
    with httpx.Client() as client:  # the pipeline goes on meanwhile
        assert wait_until(lambda: committed(client, url) > held + 50, 20)
    assert number(browser, "database") == held
    browser.evaluate("document.getElementById('pause').click()")
    browser.wait(lambda: number(browser, "database") > held, "it goes on")
    assert browser.complaints == []


def committed(client: httpx.Client, url: str) -> float:
    found = re.search(
        r'^streamgauge_committed_events_total\{service="shop"\} (\S+)', client.get(url + "metrics").text, re.MULTILINE
    )
    return float(found[1]) if found else 0.0


def test_every_control_is_reached_by_tab_and_seen_when_it_is(browser: Browser, url: str) -> None:
    browser.visit(url)
    browser.wait(lambda: browser.text("#live-text").startswith("live"), "it is live")
    browser.evaluate("document.getElementById('pause').click()")  # so that nothing is added meanwhile
    wanted = browser.evaluate("""[...document.querySelectorAll('a[href], button, select, summary, [tabindex="0"]')]
        .filter(e => e.checkVisibility()).map((e, i) => e.dataset.order = String(i))""")
    browser.evaluate("document.activeElement.blur(); document.getElementById('main').blur(); scrollTo(0, 0)")
    seen: list[str] = []
    for _ in range(len(wanted) + 5):
        browser.press("Tab")
        order, outline = browser.evaluate(
            "[document.activeElement.dataset.order ?? '', getComputedStyle(document.activeElement).outlineWidth]"
        )
        if order:
            assert outline == "3px", browser.evaluate("document.activeElement.outerHTML")
            seen.append(order)
    assert set(wanted) <= set(seen)
    assert len(wanted) > 10


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_cut_off_at_360_pixels(browser: Browser, url: str, dark: bool) -> None:
    browser.screen(360, 740, dark=dark)
    try:
        browser.visit(url)
        browser.wait(lambda: charts(browser) >= 2, "charts are drawn")
        assert browser.evaluate("document.documentElement.scrollWidth") == 360
        ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", ground))) < 64) is dark
        assert browser.complaints == []
    finally:
        browser.screen(1280, 900)


def test_a_histogram_is_picked_and_drawn(browser: Browser, url: str) -> None:
    browser.visit(url + "?series=took_seconds&range=15m")
    browser.wait(lambda: "p50" in browser.text("#heat-text .quantiles"), "quantiles are told")
    browser.wait(lambda: browser.text("#heat-text .quantiles").startswith("p50 4"), "the median is 4 ms")
    browser.wait(lambda: browser.evaluate("document.querySelector('#heat-chart canvas') !== null"), "it is drawn")
    browser.visit(url + "?series=no_such_metric&range=15m")
    browser.wait(lambda: "no series of no_such_metric is known" in browser.text("#heat-text"), "it says what is wrong")


def test_a_histogram_that_comes_later_is_offered_and_drawn(
    browser: Browser, dsn: str, other_redis: str, tmp_path: Path
) -> None:
    with Pipeline(tmp_path, dsn, other_redis) as pipeline:
        pipeline.exporter()
        browser.visit(f"http://127.0.0.1:{pipeline.port}/")
        assert browser.text("#pick-series") == "none yet"
        pipeline.aggregator()
        pipeline.emitter(EMIT, STREAMGAUGE_SERVICE="shop")
        browser.wait(lambda: "p50" in browser.text("#heat-text .quantiles"), "it is drawn")
        assert browser.text("#pick-series") == "took_seconds"
        assert browser.complaints == []


def test_the_page_reads_without_scripts_and_under_a_strict_policy(url: str) -> None:
    with httpx.Client() as client:
        answer = client.get(url)
        files = re.findall(r'(?:src|href)="(page/[^"]+)"', answer.text)
        assert len(files) == 4
        assert all(client.get(url + file).status_code == 200 for file in files)
        assert client.get(url + "page/../app.py").status_code == 404
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "unsafe" not in str(answer.headers)
    assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=", answer.text)
    assert re.search(r'data-number="producers"[^>]*>1<', answer.text)
    assert "p99" in answer.text and "complete" in answer.text


def test_viewers_are_bounded_and_share_one_reading(url: str) -> None:
    with httpx.Client(limits=httpx.Limits(max_connections=100), timeout=10) as client:
        streams = [client.send(client.build_request("GET", url + "api/live"), stream=True) for _ in range(65)]
        try:
            answers = [next(stream.iter_lines(), "") for stream in streams if stream.status_code == 200]
            assert len(answers) <= 64 and set(answers) == {"retry: 2000"}
            assert streams[-1].status_code == 503
        finally:
            for stream in streams:
                stream.close()
        assert wait_until(lambda: opens(client, url), 10)  # room again once they are gone


def opens(client: httpx.Client, url: str) -> bool:
    with client.stream("GET", url + "api/live") as stream:
        return stream.status_code == 200


async def test_what_is_wrong_is_named_and_a_stop_waits_for_nobody(
    browser: Browser, dsn: str, other_redis: str, tmp_path: Path
) -> None:
    async with writer(dsn) as rows:
        await rows.connection.execute("INSERT INTO jobs VALUES ('audit', 'Conservation audit', 3600, false)")
        await rows.producer()
        with Pipeline(tmp_path, dsn, other_redis) as pipeline:
            pipeline.exporter()
            await rows.connection.execute("INSERT INTO aggregators (consumer) VALUES ('a')")
            browser.visit(f"http://127.0.0.1:{pipeline.port}/")
            browser.wait(lambda: "All is well" in browser.text(".headline"), "all is well")
            await age_heartbeat(rows.connection)
            browser.wait(
                lambda: "no aggregator has a current heartbeat" in browser.text(".state"), "the reason is told"
            )
            assert "Needs a look" in browser.text(".headline")
            assert browser.evaluate("document.title").startswith("▲")
            await rows.connection.execute(LEAKS)
            await rows.connection.execute("INSERT INTO optimizer_runs (status, finished_at) VALUES ('done', now())")
            browser.wait(lambda: "leads<script>" in browser.text("#findings"), "the finding is shown, escaped")
            browser.evaluate("document.querySelector('.finding summary').focus()")
            browser.press("Enter")
            assert 'DROP INDEX CONCURRENTLY public."leads<script>";' in browser.text("#findings pre")
            browser.evaluate("document.querySelector('#findings .copy').click()")
            copied = browser.wait(lambda: browser.evaluate("String(getSelection())"), "the SQL is selected")
            assert copied == 'DROP INDEX CONCURRENTLY public."leads<script>";'
            assert browser.complaints == []
            began = time.monotonic()
            assert pipeline.stop("exporter") in {0, -signal.SIGTERM}
            assert time.monotonic() - began < 4
            browser.wait(lambda: "does not answer" in browser.text("#live-text"), "the loss is told")


async def age_heartbeat(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.execute("UPDATE aggregators SET seen_at = now() - interval '1 minute'")


def test_with_a_token_the_page_opens_with_it_as_password(
    browser: Browser, dsn: str, other_redis: str, tmp_path: Path
) -> None:
    with Pipeline(tmp_path, dsn, other_redis, STREAMGAUGE_EXPORTER_TOKEN="s3cret") as pipeline:
        pipeline.start("exporter", sys.executable, "-m", "streamgauge", "export")
        address = f"127.0.0.1:{pipeline.port}/"
        assert wait_until(answers(pipeline.port, "/healthz"), 30)
        with httpx.Client() as client:
            refused = client.get(f"http://{address}")
            assert refused.status_code == 401 and "Basic" in refused.headers["www-authenticate"]
            assert client.get(f"http://{address}api/live").status_code == 401
        browser.visit(f"http://{address}", f"http://me:s3cret@{address}")
        browser.wait(lambda: browser.text("#live-text").startswith("live"), "it is live")
        assert "Needs a look" in browser.text(".headline")
        assert browser.complaints == []
