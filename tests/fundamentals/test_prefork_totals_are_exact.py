"""I5: a forked worker discards what it inherited and becomes a producer of its own."""

import subprocess
import sys

from tests.stream_sums import read_streams

PREFORK = """
import os, sys
from streamgauge import Counter, Histogram
hits = Counter("hits", labelnames=["worker"])
shared = Counter("shared")
size = Histogram("size", buckets=(1.0, 5.0))
for _ in range(500):
    shared.inc()          # the parent's, some of it still in its lists when it forks
workers = []
for worker in range(4):
    pid = os.fork()
    if pid == 0:
        child = hits.labels(worker)
        for i in range(2000):
            child.inc(); shared.inc(); size.observe(i % 9)
        sys.exit(0)
    workers.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in workers]
shared.inc()
assert codes == [0] * 4, codes
"""

POOL = """
import multiprocessing
from streamgauge import Counter
hits = Counter("hits")
hits.inc()
def work(_):
    for _ in range(100):
        hits.inc()
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool:
        pool.map(work, range(30))
        pool.close(); pool.join()
"""


def run(source: str, redis_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={"REDIS_URL": redis_url, "PATH": "/usr/bin", "STREAMGAUGE_EXIT_TIMEOUT_S": "20"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_prefork_totals_are_exact(redis_url: str) -> None:
    """Four workers forked after import: nothing twice, nothing lost, five producers, each with its `fin`."""
    run(PREFORK, redis_url)
    sums = read_streams(redis_url)
    assert sums.series[b"shared_total"].sum == 501 + 4 * 2000
    assert all(sums.series[f'hits_total{{worker="{w}"}}'.encode()].sum == 2000 for w in range(4))
    assert sums.series[b"size"].n == 8000
    assert len({producer for producer, _ in sums.bodies}) == 5
    assert sum(body.fin for body in sums.bodies.values()) == 5
    assert not sums.missing()


def test_multiprocessing_workers_flush_at_their_end(redis_url: str) -> None:
    """A pool's workers end without atexit, and yet send what they emitted."""
    run(POOL, redis_url)
    assert read_streams(redis_url).series[b"hits_total"].sum == 1 + 30 * 100
