"""`streamgauge alive` as a container's health check calls it."""

import os
import socket
import subprocess
import sys

from tests.exporting import writer


def alive(dsn: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "streamgauge", "alive", *options]
    env = {**os.environ, "POSTGRES_DSN": dsn}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


async def test_only_a_current_heartbeat_of_this_host_counts(dsn: str) -> None:
    host = socket.gethostname()[:40]
    assert alive(dsn).returncode == 1
    async with writer(dsn) as rows:
        beat = "INSERT INTO aggregators (consumer, seen_at) VALUES ($1, now() - make_interval(secs => $2))"
        await rows.connection.execute(beat, f"{host}-other-0123abcd", 0.0)
        await rows.connection.execute(beat, f"{host}-00000000", 60.0)
        assert "no aggregator" in alive(dsn).stdout
        await rows.connection.execute(beat, f"{host}-0123abcd", 0.0)
    found = alive(dsn)
    assert (found.returncode, found.stdout.strip()) == (0, f"{host}-0123abcd")
    assert alive(dsn, "--host", "elsewhere").returncode == 1
