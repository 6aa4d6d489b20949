"""History: how long /api/rollups takes for an hour, a day and thirty days.

In: a scratch stack whose history was written by SQL from a generator, not by the pipeline. Out: a Section,
milliseconds of a client's whole request, quantiles 0.5 and 0.99 of every point included.
"""

import asyncio
import time
from typing import Final, NamedTuple
from urllib.parse import quote

import asyncpg

from benchmarks.backlog import METRIC, Backlog, push
from benchmarks.measure import OURS, Section
from benchmarks.scrape import get_metrics
from benchmarks.scratch import Scratch, wait_committed
from contract import sketch
from contract.windows import LEVELS_S
from database.partitions import ROLLUPS, partition

SERIES: Final = 100
SAMPLES: Final = 40
CREATE: Final = """CREATE TABLE IF NOT EXISTS {name} PARTITION OF {parent}
    FOR VALUES FROM (to_timestamp({start_s})) TO (to_timestamp({end_s}))"""
FILL: Final = """INSERT INTO {parent} (window_start, series_id, producer_no, n, sum, min, max, sketch)
    SELECT to_timestamp(at), series_id, 0, $4::bigint, $4::bigint * 0.5, 0.001, 1.0, $5::bytea
      FROM generate_series($1::bigint, $2::bigint, $3::bigint) AS at, series ORDER BY at, series_id"""


class Span(NamedTuple):
    """What is asked: a title, how far back, in which steps, and the level that answers."""

    title: str
    seconds: int
    step: str
    level: str


SPANS: Final = (
    Span("1 h in steps of 10 s", 3600, "10s", "10s"),
    Span("1 d in steps of 1 m", 86_400, "1m", "1m"),
    Span("30 d in steps of 1 h", 30 * 86_400, "1h", "1h"),
)


def run(full: bool) -> Section:
    """Ask each question in turns."""
    section = Section("history", "History: latency of /api/rollups", less_is_better=True)
    took: dict[str, list[float]] = {}
    with Scratch() as stack:
        rows = fill(stack)
        stack.exporter()
        for number in range(41 if full else 11):
            for span in SPANS:
                for title, match in (("1 series", '{route="r000000"}'), (f"all {SERIES} series merged", "")):
                    took_s = ask(stack.exporter_port, span, match)
                    if number:  # the first one finds nothing in memory
                        took.setdefault(f"{span.title}, {title}", []).append(took_s * 1000)
    for work, values in took.items():
        section.add(work, OURS, "ms", values)
    section.notes.append(
        f"{rows:,} rows of {SERIES} series with sketches of {SAMPLES} samples, written by SQL from a generator: "
        "10 s windows of an hour, 1 m windows of a day, 1 h windows of 30 days; no aggregator runs."
    )
    return section


def fill(stack: Scratch) -> int:
    """Make the series by the pipeline and their history by SQL; returns how many rows."""
    aggregator = stack.aggregator()
    backlog = Backlog(1, SERIES)
    push(stack.client(), backlog.seal(1, 1))
    wait_committed(stack.dsn, backlog.events)
    stack.stop(aggregator)
    return asyncio.run(_fill(stack.dsn))


async def _fill(dsn: str) -> int:
    counts: dict[int, int] = {}
    sketch.fold([(i + 1) / SAMPLES for i in range(SAMPLES)], counts)
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "streamgauge"}, timeout=10)
    rows = 0
    try:
        for span in SPANS:
            kind, width_s = ROLLUPS[span.level], LEVELS_S[span.level]
            end_s = int(time.time()) // width_s * width_s - width_s
            begin_s = end_s - span.seconds
            for part in {partition(kind, at) for at in (*range(begin_s, end_s, kind.width_s), end_s)}:
                await connection.execute(CREATE.format(parent=kind.parent, **part._asdict()))
            values = (begin_s, end_s - width_s, width_s, SAMPLES, sketch.encode(counts))
            done = await connection.execute(FILL.format(parent=kind.parent), *values, timeout=120)
            rows += int(done.split()[-1])
        await connection.execute("ANALYZE")
    finally:
        await connection.close(timeout=10)
    return rows


def ask(port: int, span: Span, match: str) -> float:
    """Return the seconds of a request; raises unless all but the newest points are answered."""
    path = f"/api/rollups?metric={METRIC.name}&match={quote(match)}&from=-{span.seconds}s&step={span.step}"
    scraped = get_metrics(port, path=f"{path}&quantile=0.5,0.99")
    points = scraped.body.count(b'"quantiles"')
    expected = span.seconds // LEVELS_S[span.level]
    if points < expected * 0.95:
        raise RuntimeError(f"{path} answers {points} points, not {expected}")
    return scraped.seconds
