"""Memory of an aggregator: batches of the largest size, more of them than would fit together.

Promise: what is read and decoded at once is bounded by bytes, whatever entries hold; all of it is committed.
"""

import os
import struct
import sys
import time
from pathlib import Path
from typing import Final

import pytest
import redis

from contract.batch import MAX_BODY_BYTES, Body, Directory, encode_directory, seal
from contract.metric import DEFAULT_BUCKETS, Kind, MetricDef
from contract.streams import FIELD, SHARD_COUNT_KEY, stream_key
from streamgauge.processes import wait_until
from tests.loading import COMMITTED, DEADLINE_S, FAST, assert_audit, fetch
from tests.pipeline import Pipeline
from tests.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

SAMPLES: Final = (MAX_BODY_BYTES - 4096) // 8
BATCHES: Final = 200
LIMIT_BYTES: Final = 1 << 30
"""Of address space: an aggregator takes 230 MB; what is decoded of all batches would take several times this."""
ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1"}
"""Each thread of numpy's reserves address space, and there is one a core."""


def giant(producer: bytes, seq: int) -> bytes:
    """A batch whose body is as long as may be, and some kB in the stream."""
    metric = MetricDef("size", Kind.HISTOGRAM, bounds=DEFAULT_BUCKETS)
    directory = encode_directory(Directory((metric,), [b"size"], struct.pack("<H", 0), 0, 0, 1, 0))
    window_s = int(time.time()) // 10 * 10
    head = (window_s, window_s * 1000, window_s * 1000, 0, 0, 1, SAMPLES * seq)
    samples = {"sample_n": struct.pack("<I", SAMPLES), "samples": struct.pack("<d", 1.0 + seq) * SAMPLES}
    body = Body("test", *head, dropped={}, fin=False, run_id=None, directory=directory, **samples)
    return seal(producer, seq, SAMPLES, body)


def test_giants_that_do_not_fit_together_are_committed(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """200 bodies of 4 MiB are 800 MiB, and several times that while they are folded."""
    producer = os.urandom(16)
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as link:
        link.set(SHARD_COUNT_KEY, 1)
        for seq in range(1, BATCHES + 1):
            link.xadd(stream_key(0), {FIELD: giant(producer, seq)})
    with Pipeline(tmp_path, dsn, redis_url, **FAST) as pipeline:
        pipeline.exporter()
        command = ("prlimit", f"--as={LIMIT_BYTES}", sys.executable, "-m", "streamgauge", "aggregate")
        process = pipeline.start("aggregator", *command, env=ONE_THREAD)

        def is_done() -> bool:
            return process.poll() is not None or fetch(dsn, COMMITTED) == BATCHES * SAMPLES

        with Served(pipeline.port) as served:
            assert wait_until(is_done, DEADLINE_S)
        served.check(5)
        assert process.poll() is None, pipeline.log("aggregator").read_text()[-2000:]
        assert_audit(pipeline)
        assert fetch(dsn, "SELECT count(*) FROM quarantine") == 0
