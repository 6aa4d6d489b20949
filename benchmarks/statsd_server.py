"""Etsy's statsd server beside our drain: timings taken in a second, and how many of those sent never arrived.

In: a scratch stack; `npm` and `node` on PATH. Out: a Section. The server is installed from npm on first use, into the
user's cache folder; without npm a loud note takes the place of its rows. It keeps values in memory; ours count when
they are committed in PostgreSQL.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.backlog import Backlog
from benchmarks.drain import PRODUCERS, SHAPES, Found, drain_round, require_ok_audit
from benchmarks.measure import OURS, Section
from benchmarks.scratch import Scratch, committed, cpu_s, wait_for
from streamgauge.processes import free_port

VERSION: Final = "0.9.0"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamgauge-bench" / "statsd"
INSTALL_S: Final = 120
SHAPE: Final = SHAPES[0]
LINES: Final = {"one timing a datagram": 1, "datagrams of 30 timings": 30}
SEND_S: Final = 2.0
QUIET_S: Final = 1.0


def run(full: bool) -> Section:
    """Flood the server and drain a backlog in turns."""
    section = Section("statsd_server", "Ingest: Etsy's statsd server beside our drain", less_is_better=False)
    script = install()
    found = Found()
    rates: dict[str, list[float]] = {work: [] for work in LINES}
    lost: dict[str, list[float]] = {work: [] for work in LINES}
    cpu: dict[str, list[float]] = {work: [] for work in LINES}
    with Scratch() as stack:
        aggregator = stack.aggregator()
        backlog = Backlog(PRODUCERS, SHAPE.series)
        drain_round(stack, aggregator, backlog, SHAPE, backlog.sweep, None)
        for _ in range(7 if full else 3):
            drain_round(stack, aggregator, backlog, SHAPE, SHAPE.batches // (1 if full else 3), found)
            for work, lines in LINES.items() if script else ():
                rate, share, cpu_ns = _flood(stack, script, lines)
                rates[work].append(rate)
                lost[work].append(share * 100)
                cpu[work].append(cpu_ns)
        require_ok_audit(stack)
        ours_lost = 1 - committed(stack.dsn) / backlog.events
    section.add("events taken", OURS, "events/s", found.events)
    section.add("events lost on the way", OURS, "%", [ours_lost * 100])
    if not script:
        section.notes.append("**Etsy's statsd server: not run: npm missing** (or it could not install the package).")
    for work in LINES if script else ():
        section.add("events taken", f"statsd server, {work}", "events/s", rates[work])
        section.add("events lost on the way", f"statsd server, {work}", "%", lost[work])
        used_ns = sorted(cpu[work])[len(cpu[work]) // 2]
        section.notes.append(
            f"statsd server, {work}: {used_ns:,.0f} ns of its processor time an event, so at most "
            f"{1e9 / used_ns:,.0f} events/s of a core of its own."
        )
    section.notes.append(
        f"statsd {VERSION} from npm, in memory, no backend, flooded over loopback UDP for {SEND_S:g} s by a process "
        "that sends as fast as it can; ours is read from a backlog and committed with fsync on. Loss by UDP is silent: "
        "only the sender's own count tells it here. Ours is what was sealed and is not committed; the audit is ok."
    )
    return section


def install() -> Path | None:
    """Return the server's script, installed now if need be; None without npm and node."""
    script = CACHE / "node_modules" / "statsd" / "stats.js"
    npm = shutil.which("npm")
    if shutil.which("node") is None:
        return None
    if script.exists() or npm is None:
        return script if script.exists() else None
    CACHE.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-save", "--omit=optional", "--prefix", str(CACHE), f"statsd@{VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode != 0:
        print(f"npm could not install statsd:\n{done.stderr[-2000:]}", file=sys.stderr)
    return script if script.exists() else None


def _flood(stack: Scratch, script: Path | None, lines: int) -> tuple[float, float, float]:
    """Return events per second, the share lost, and processor nanoseconds an event of one round."""
    assert script is not None, "BUG: flooded without a server"
    port, admin = _udp_port(), free_port()
    config = stack.home / f"statsd-{port}.js"
    config.write_text(
        f'{{port: {port}, address: "127.0.0.1", mgmt_port: {admin}, mgmt_address: "127.0.0.1",'
        " flushInterval: 3600000, backends: [], title: false}"
    )
    command = [shutil.which("node") or "node", str(script), str(config)]
    server = stack.start("statsd", command, lambda: _received(admin) is not None)
    used_s = cpu_s(server.pid)
    sender = [sys.executable, "-m", "benchmarks.statsd_server", str(port), str(lines)]
    said = subprocess.run(sender, env=stack.environ, capture_output=True, text=True, timeout=60, check=True).stdout
    told = json.loads(said)
    received, busy_s = _settled(admin, float(told["began_s"]))
    used_s = cpu_s(server.pid) - used_s
    stack.stop(server)
    return received / busy_s, 1 - received / int(told["sent"]), used_s / received * 1e9


def _udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _settled(admin: int, began_s: float) -> tuple[int, float]:
    """Return how many timings arrived once no more do, and the seconds until the last was seen."""
    seen: list[tuple[int, float]] = [(_received(admin) or 0, time.monotonic())]

    def is_quiet() -> bool:
        now = _received(admin)
        if now is not None and now != seen[-1][0]:
            seen.append((now, time.monotonic()))
        return time.monotonic() - seen[-1][1] > QUIET_S

    wait_for(is_quiet, 60, "the statsd server has taken what was sent", 0.05)
    return seen[-1][0], seen[-1][1] - began_s


def _received(admin: int) -> int | None:
    """Ask the server's management port how many timings it has counted; None while it does not answer."""
    try:
        with socket.create_connection(("127.0.0.1", admin), timeout=10) as link:
            link.sendall(b"counters\n")
            said = b""
            while not said.rstrip().endswith(b"END"):
                piece = link.recv(65536)
                if not piece:
                    return None
                said += piece
    except OSError:
        return None
    for line in said.replace(b",", b"\n").splitlines():
        name, _, value = line.partition(b":")
        if b"metrics_received" in name:
            return int(value.strip(b" }"))
    return None


def flood(port: int, lines: int) -> None:
    """Send datagrams as fast as possible for a while; prints how many timings were sent, and since when."""
    values = random.Random(7)
    texts = [
        "\n".join(f"bench.latency.r{values.randrange(1000):06d}:{values.random() * 1000:.3f}|ms" for _ in range(lines))
        for _ in range(1000)
    ]
    datagrams = [text.encode() for text in texts]
    sent, began_s = 0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.connect(("127.0.0.1", port))
        while time.monotonic() < began_s + SEND_S:
            for datagram in datagrams:
                link.send(datagram)
            sent += len(datagrams) * lines
    print(json.dumps({"sent": sent, "began_s": began_s}))


if __name__ == "__main__":
    flood(int(sys.argv[1]), int(sys.argv[2]))
