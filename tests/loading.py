"""Load for tests: a load test in a process of its own, and what must hold when it has ended.

In: a pipeline. Out: the load test's last line. Promise: totals are compared with the oracle series by series, and the
audit is asked.
"""

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import asyncpg

from database.connect import AWAY, SCHEMA
from streamgauge.loadtest import compare_oracle
from tests.exporting import samples
from tests.pipeline import Pipeline

DEADLINE_S = 90.0
EVENTS = 60_000
RATE = 8_000
STALLED_S = 3.0
"""Without a commit although somebody emits: commits come ten times a second."""
FAST = {
    "STREAMGAUGE_RECLAIM_IDLE_S": "1",
    "STREAMGAUGE_RECLAIM_INTERVAL_S": "0.5",
    "STREAMGAUGE_LEASE_S": "1.5",
    "STREAMGAUGE_COMMIT_INTERVAL_S": "0.1",
}
COMMITTED = "SELECT coalesce(sum(committed_events), 0)::bigint FROM producers"
DUPLICATES = "SELECT coalesce(sum(duplicates), 0)::bigint FROM producers"


class Load:
    """A load test in a process of its own, with its oracle files."""

    def __init__(
        self, pipeline: Pipeline, dsn: str, *options: str, events: int = EVENTS, rate: int = RATE, at: str | None = None
    ) -> None:
        """`dsn`: where the totals are in the end; `at`: the load test's own address, if not the pipeline's."""
        self.dsn = dsn
        self.events = events
        self.oracle = pipeline.folder / "oracle"
        command = [sys.executable, "-m", "streamgauge", "loadtest", "--real", "--json", "--oracle", str(self.oracle)]
        command += ["--events", str(events), "--rate", str(rate), "--series", "40", "--producers", "2"]
        command += ["--deadline", str(DEADLINE_S), *options]
        env = pipeline.env | ({"POSTGRES_DSN": at} if at else {})
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self) -> dict[str, Any]:
        """Wait for its end and return its last line."""
        out, err = self.process.communicate(timeout=2 * DEADLINE_S)
        assert out, err
        return json.loads(out.splitlines()[-1])

    def differences(self) -> list[str]:
        """Compare totals with the oracle, series by series: counts, sums, `le` counts."""
        files = sorted(self.oracle.parent.glob(f"{self.oracle.name}.*"))
        assert files
        return [str(difference) for difference in compare_oracle(files, self.dsn, SCHEMA)]


def fetch(dsn: str, query: str) -> int:
    """Return one number; 0 while the server cannot be reached."""
    return int(ask(dsn, query) or 0)


def ask(dsn: str, query: str) -> Any:
    """Return one value; None while the server cannot be reached."""

    async def fetch_value() -> Any:
        connection = await asyncpg.connect(dsn, timeout=5, server_settings={"search_path": SCHEMA})
        try:
            return await connection.fetchval(query, timeout=20)
        finally:
            await connection.close(timeout=5)

    try:
        return asyncio.run(fetch_value())
    except AWAY:
        return None


def assert_exact(pipeline: Pipeline, load: Load, dsn: str) -> None:
    """Everything that was sent is committed once, says the oracle, the ledger and the audit."""
    said = load.finish()
    assert said["sent"] == load.events, said
    assert said["committed"] == said["accepted"] == load.events, said
    assert said["lost"] == said["dropped"] == said["quarantined"] == said["in_flight"] == 0, said
    assert load.differences() == []
    assert fetch(dsn, "SELECT sum(n)::bigint FROM totals") == fetch(dsn, COMMITTED)
    assert_audit(pipeline)


def since_last_commit(pipeline: Pipeline) -> float:
    """Return how long ago the newest commit was made, by /metrics; 0 when it is not served."""
    text = pipeline.scrape()
    newest = samples(text).get("streamgauge_last_commit_timestamp_seconds", 0.0) if text else time.time()
    return time.time() - newest


def assert_audit(pipeline: Pipeline) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streamgauge", "audit", "--json"],
        env=pipeline.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["ok"]
