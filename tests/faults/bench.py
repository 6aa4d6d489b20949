"""The bench: a pipeline of real processes whose links to Redis and PostgreSQL can be spoilt one by one.

In: addresses of real servers. Out: a Bench with emitters, aggregators, an exporter, and a link for each way.
Promise: the exporter, the audit and the oracle have ways of their own, so that what they tell is not spoilt; `close`
leaves no process and no thread.
"""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

import redis
from prometheus_client.parser import text_string_to_metric_families

from streamgauge.processes import wait_until
from streamgauge.stack import get
from tests.faults.link import Link
from tests.faults.oracle import Book, Emitters, Spool
from tests.loading import FAST, ask, assert_audit
from tests.pipeline import Pipeline
from tests.served import Served

DEADLINE_S: Final = 60.0
AGE: Final = """
WITH gone AS (UPDATE producers SET last_seen = last_seen - interval '1 hour' WHERE NOT fin)
UPDATE gaps SET opened_at = opened_at - interval '1 hour' WHERE closed_at IS NULL
"""


class Bench:
    """A pipeline with spoilable links."""

    def __init__(self, folder: Path, dsn: str, redis_url: str, *, spool: Spool = "", **settings: str) -> None:
        self.dsn = dsn
        self.redis_url = redis_url
        at = urlsplit(redis_url)
        self.producer_link = Link("127.0.0.1", at.port or 0)
        self.aggregator_link = Link("127.0.0.1", at.port or 0)
        self.postgres_link = Link.to_unix(_socket(dsn))
        self.pipeline = Pipeline(folder, dsn, redis_url, **(FAST | settings))
        self.emitters = Emitters(self.pipeline, dsn, f"redis://{self.producer_link.address}/0", spool)
        self.served: Served | None = None
        self._aggregators = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        if kind is None and self.served is not None:
            self.served.check()

    @property
    def links(self) -> dict[str, Link]:
        """Return the links by name."""
        return {
            "producer-redis": self.producer_link,
            "aggregator-redis": self.aggregator_link,
            "aggregator-postgres": self.postgres_link,
        }

    def client(self) -> Any:
        """Return a client of Redis that goes past the links."""
        return self.client_of(self.redis_url)

    def client_of(self, url: str) -> Any:
        """Return a client of a Redis."""
        return redis.Redis.from_url(url, protocol=2, socket_timeout=10)

    def move_to(self, redis_url: str) -> None:
        """Another Redis is the one that counts from now on; whoever goes through a link is led there by its owner."""
        self.redis_url = self.pipeline.env["REDIS_URL"] = redis_url

    def exporter(self) -> None:
        """Start an exporter, and scrape it from now on."""
        self.pipeline.exporter()
        self.served = Served(self.pipeline.port)
        self.served.__enter__()

    def restart_exporter(self) -> None:
        """Start the exporter again, at the same port; who scrapes it goes on."""
        self.pipeline.start("exporter", sys.executable, "-m", "streamgauge", "export")

    def aggregator(self, **settings: str) -> str:
        """Start an aggregator and wait until it has a shard or has ended; returns its name."""
        name = self.begin_aggregator(**settings)
        process = self.pipeline.processes[name]
        self.until(lambda: process.poll() is not None or self.says(name, "shard_started"), f"{name} is up")
        return name

    def begin_aggregator(self, **settings: str) -> str:
        """Start an aggregator; returns its name at once."""
        self._aggregators += 1
        name = f"aggregator-{self._aggregators}"
        at = urlsplit(self.dsn)
        env = {
            "REDIS_URL": f"redis://{self.aggregator_link.address}/0",
            "POSTGRES_DSN": f"postgresql://{at.username}@{self.postgres_link.address}{at.path}",
        }
        self.pipeline.start(name, sys.executable, "-m", "streamgauge", "aggregate", env=env | settings)
        return name

    def says(self, name: str, text: str) -> bool:
        """Whether a process has logged a text."""
        return text in self.pipeline.log(name).read_text()

    def aggregators(self) -> list[str]:
        """Return those that run."""
        return [name for name, p in self.pipeline.processes.items() if "aggregator" in name and p.poll() is None]

    def kill(self, name: str) -> None:
        """Kill -9."""
        self.pipeline.stop(name, signal.SIGKILL)

    def until(self, holds: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait for a condition."""
        assert wait_until(holds, deadline_s), f"waited {deadline_s:g} s: {what}"

    def grows(self, by: int = 1) -> None:
        """Wait until more events are committed."""
        before = self.emitters.committed()
        self.until(lambda: self.emitters.committed() >= before + by, "something is committed")

    def sample(self, name: str, path: str = "/metrics", **labels: str) -> float | None:
        """Return the sum of a metric's samples with these labels; None while there is none."""
        status, body = get(self.pipeline.port, path)
        values = [
            sample.value
            for family in text_string_to_metric_families(body.decode() if status == 200 else "")
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(values) if values else None

    def told(self, name: str, least: float, path: str = "/metrics", **labels: str) -> None:
        """Wait until a metric shows at least so much: the fault is told."""
        self.until(
            lambda: (self.sample(name, path, **labels) or 0) >= least, f"{name} {labels} reaches {least:g}", DEADLINE_S
        )

    def let_an_hour_pass(self) -> None:
        """Make gaps, and producers without a farewell, an hour older."""
        ask(self.dsn, AGE)

    def close_gaps(self) -> None:
        """Have the upkeep close what gaps there are; it does so once the streams are drained."""
        self.let_an_hour_pass()
        open_gaps = "SELECT count(*) FROM gaps WHERE closed_at IS NULL"

        def are_closed() -> bool:
            self.run_job("upkeep")
            return not ask(self.dsn, open_gaps)

        self.until(are_closed, "gaps are closed")

    def run_job(self, job: str) -> None:
        """Ask an aggregator to run a job and wait for its end."""
        command = [sys.executable, "-m", "streamgauge", "jobs", "run", job, "--wait", "--timeout", "60"]
        done = subprocess.run(command, env=self.pipeline.env, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def check(self, scrapes: int = 1) -> list[Book]:
        """Nothing twice, nothing lost but what is told, no served counter fell, the audit is content."""
        self.emitters.finish()
        self.emitters.succeed()
        books = self.emitters.check()
        assert_audit(self.pipeline)
        if self.served is not None:
            self.served.check(scrapes)
        self.are_sound()
        return books

    def are_sound(self) -> None:
        """Nobody died but those that a test killed, and no log tells of a bug of ours."""
        for name, process in self.pipeline.processes.items():
            expected = (None, 0) if name in self.emitters.names() else (None, -signal.SIGKILL)
            killed = name in self.emitters.killed
            assert killed or process.poll() in expected, f"{name} ended: {self._tail(name)}"
        for log in self.pipeline.folder.glob("*.log"):
            assert "Traceback" not in log.read_text(), f"{log.stem}: {self._tail(log.stem)}"

    def _tail(self, name: str) -> str:
        return self.pipeline.log(name).read_text()[-3000:]

    def close(self) -> None:
        """End everything."""
        try:
            if self.served is not None:
                self.served.__exit__(None, None, None)
        finally:
            self.pipeline.close()
            for link in self.links.values():
                link.close()


def _socket(dsn: str) -> Path:
    """Return the unix socket in a DSN as the fixtures make it."""
    return Path(parse_qs(urlsplit(dsn).query)["host"][0]) / ".s.PGSQL.5432"
