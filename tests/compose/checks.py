"""What must hold of the system once it is up, and after a part of it was killed.

In: the engine, the project's folder. Out: a line for what was seen. Promise: each check raises AssertionError with what
it saw instead.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.compose.engine import Engine
from tests.compose.images import BASE, STUBS
from tests.compose.load import Load, connect
from tests.watching import ROOT

SERVICE: Final = "com.docker.compose.service"
LOGGING_JSON: Final = ("aggregator", "exporter", *(f"api-{number}" for number in range(1, 6)))
UP_S: Final = 480.0
BACK_S: Final = 120.0


class System:
    """The containers of the project, by service."""

    def __init__(self, engine: Engine, project: Path) -> None:
        self.engine = engine
        self.project = project

    def states(self) -> dict[str, dict[str, Any]]:
        """Return the state of every container, by its name without the project's."""
        ids = self.engine.docker("ps", "-aq", "--filter", "label=com.docker.compose.project=sg").split()
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", *ids)) if ids else []
        return {one["Name"].removeprefix("/sg_"): one["State"] for one in found}

    def not_well(self) -> dict[str, str]:
        """Name what is not healthy; a service that runs once must have ended well."""
        return {name: words for name, state in self.states().items() if (words := ill(name, state))}

    def await_health(self, deadline_s: float) -> str:
        """Wait until every container is healthy."""
        began_s = time.monotonic()
        while left := self.not_well():
            if time.monotonic() - began_s > deadline_s:
                logs = "".join(f"\n--- {name}\n{self.engine.logs(f'sg_{name}')}" for name in left)
                raise AssertionError(f"not healthy after {deadline_s:.0f} s: {left}{logs}")
            time.sleep(1)
        return f"{len(self.states())} containers healthy after {time.monotonic() - began_s:.0f} s"

    def ask(self, name: str, command: str) -> str:
        """Run a command in a container; it must succeed."""
        return self.engine.docker("exec", f"sg_{name}", *shlex.split(command))

    def kill(self, name: str) -> None:
        """kill -9 of a container's process, as a crash: the engine starts it again."""
        os.kill(self.states()[name]["Pid"], signal.SIGKILL)

    def beside(self, script: str, arguments: str, env: dict[str, str]) -> str:
        """Run a script in a container of its own that is on every network, whatever its exit code."""
        options = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
        options += ["-v", f"{self.project}/secrets:/secrets:ro", "--network", "sg_front"]
        run = f"cat >/tmp/script; sh /tmp/script {arguments} || true"
        made = self.engine.docker("create", "-i", "--rm", *options, BASE, "sh", "-c", run).strip()
        for network in ("sg_data", "sg_watch"):
            self.engine.docker("network", "connect", network, made)
        return self.engine.docker("start", "-a", "-i", made, text=script)


def ill(name: str, state: dict[str, Any]) -> str:
    """Say what is wrong with a container, if anything is."""
    if name.startswith("migrate"):
        return "" if state["Status"] == "exited" and state["ExitCode"] == 0 else f"{state['Status']}"
    health = state.get("Health", {}).get("Status", "no health check")
    return "" if state["Status"] == "running" and health == "healthy" else f"{state['Status']}, {health}"


def until(holds: Callable[[], object], deadline_s: float, what: str) -> float:
    """Wait for a condition; returns seconds."""
    began_s = time.monotonic()
    while not holds():
        assert time.monotonic() - began_s < deadline_s, f"waited {deadline_s:.0f} s: {what}"
        time.sleep(0.5)
    return time.monotonic() - began_s


def check_edge(authority: Path) -> str:
    """The published ports: TLS that verifies, nothing of the inside, plain HTTP sent on."""
    seen: dict[str, int] = {}
    connection = connect(authority)
    for path in ("/healthz", "/readyz", "/metrics", "/docs"):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        seen[path] = response.status
    assert seen == {"/healthz": 200, "/readyz": 200, "/metrics": 404, "/docs": 404}, seen
    return ", ".join(f"{path} {status}" for path, status in seen.items())


def check_targets(system: System) -> str:
    """Prometheus reaches whatever its file names."""
    began_s = time.monotonic()
    while down := [f"{one['scrapeUrl']}: {one['lastError']}" for one in targets(system) if one["health"] != "up"]:
        assert time.monotonic() - began_s < BACK_S, down
        time.sleep(1)
    until(lambda: lowest_probe(system) == "1", BACK_S, "every probe of blackbox_exporter succeeds")
    return f"{len(targets(system))} targets up, every probe succeeds"


def targets(system: System) -> list[dict[str, Any]]:
    """Return what Prometheus scrapes; one that it has just found is not known to be up."""
    reply = system.ask("prometheus_1", "wget -q -O - http://127.0.0.1:9090/api/v1/targets?state=active")
    found: list[dict[str, Any]] = json.loads(reply)["data"]["activeTargets"]
    assert found
    return found


def lowest_probe(system: System) -> str:
    """Return 1 when each target of blackbox_exporter is as it should be: the edge, its WebSocket, all replicas."""
    query = "http://127.0.0.1:9090/api/v1/query?query=min(probe_success)"
    found = json.loads(system.ask("prometheus_1", f"wget -q -O - '{query}'"))["data"]["result"]
    return str(found[0]["value"][1]) if found else ""


def check_logs(system: System) -> str:
    """Alloy can read what Docker writes, beside each line stands its service's name, and ours write JSON."""
    entries = [
        json.loads(line)
        for line in system.ask("alloy_1", "sh -c 'cat /var/lib/docker/containers/*/*-json.log'").splitlines()
    ]
    unnamed = [one["log"] for one in entries if SERVICE not in one.get("attrs", {})]
    assert not unnamed, unnamed[:3]
    written = Counter(one["attrs"][SERVICE] for one in entries)
    assert {"nginx", *LOGGING_JSON} <= written.keys(), written
    for one in entries:
        if one["attrs"][SERVICE] in LOGGING_JSON:
            assert json.loads(one["log"]).keys() >= {"at", "level", "event"}, one
    return (
        f"{len(entries)} lines of {len(written)} services, {sum(written[name] for name in LOGGING_JSON)} of them ours"
    )


def check_optimizer(system: System) -> str:
    """DatabaseOptimizer runs as the aggregators' role and looks at the replicas as its own; nothing is refused."""
    said = system.ask("aggregator_1", "streamgauge jobs run run_optimization --wait")
    kinds = "$$permission$$, $$unreachable$$, $$fault$$"
    query = f"SELECT check_id, error_kind, detail FROM streamgauge.check_results WHERE error_kind IN ({kinds})"
    refused = system.ask("postgres-primary_1", f"psql -d streamgauge -Atc '{query}'")
    assert not refused.strip(), refused
    asked = "SELECT count(*) FROM pg_stat_statements JOIN pg_roles r ON r.oid = userid WHERE rolname = "
    query = f"{asked}$$streamgauge_optimizer$$"
    counts = [int(system.ask(f"postgres-replica-{n}_1", f"psql -d streamgauge -Atc '{query}'")) for n in (1, 2)]
    assert min(counts) > 0, f"statements of the optimizer on the replicas: {counts}"
    return said.strip().splitlines()[-1]


def check_hardening(system: System) -> str:
    """The rules of containers hold of what runs."""
    command = [sys.executable, "-m", "streamgauge.hardening", "--live", "--docker", "sg", "--format", "json"]
    run = subprocess.run(command, env=system.engine.environ, capture_output=True, text=True, timeout=BACK_S)
    found = {one["id"]: one for one in json.loads(run.stdout)["rules"] if one["id"].startswith("D")}
    wrong = [one for name, one in found.items() if one["status"] != ("skip" if name == "D10" else "pass")]
    assert not wrong, wrong
    return f"{len(found) - 1} rules of containers hold; digests are for the files to tell"


def check_audit(system: System) -> str:
    """Every accepted event is accounted for, as an aggregator's own role sees it."""
    found = json.loads(system.ask("aggregator_1", "streamgauge audit --json"))
    assert found["ok"] is True, found
    return json.dumps(found.get("account", found))[:400]


def check_health(system: System, allowed: tuple[str, ...]) -> str:
    """What scripts/health-check.sh says from inside the networks; asked again while a rate has no full window yet."""
    apis = " ".join(f"http://api-{number}:8000" for number in range(1, 6))
    env = {
        "STREAMGAUGE_EXPORTER_URL": "http://exporter:9464",
        "STREAMGAUGE_EXPORTER_TOKEN_FILE": "/secrets/exporter/exporter_token",
        "STREAMGAUGE_API_URLS": apis,
        "NGINX_URL": "https://nginx:8443",
        "CURL_CA_BUNDLE": "/secrets/nginx/ca.crt",
        "PROMETHEUS_URL": "http://prometheus:9090",
        "ALERTMANAGER_URL": "http://alertmanager:9093",
        "GRAFANA_URL": f"http://grafana:{STUBS['grafana/grafana']}",
        "LOKI_URL": f"http://loki:{STUBS['grafana/loki']}",
    }
    script = (ROOT / "scripts/health-check.sh").read_text()
    began_s = time.monotonic()
    while True:
        found = json.loads(system.beside(script, "--format json", env))
        said = [f"{one['name']}: {one['message']}" for one in found["checks"] if one["status"] != "ok"]
        if found["status"] in allowed:
            break
        assert time.monotonic() - began_s < BACK_S, said
    return f"{found['status']}, {len(found['checks'])} checks" + "".join(f"\n        {line}" for line in said)


def crash(system: System, name: str) -> str:
    """kill -9 what a container runs; the engine starts it again and it is well."""
    before = system.states()[name]["StartedAt"]
    system.kill(name)
    until(lambda: system.states()[name]["StartedAt"] != before, BACK_S, f"{name} is started again")
    back_s = until(lambda: not system.not_well(), BACK_S, f"all well after {name}: {system.not_well()}")
    return f"started again, all healthy after {back_s:.0f} s"


def master(system: System) -> str:
    """Ask a Sentinel for the address of the master."""
    ask = "REDISCLI_AUTH=$(cat /run/secrets/redis_client_password) redis-cli -h $REDIS_NODE -p 26379 --user client"
    return system.ask("sentinel-1_1", f"sh -c '{ask} --no-auth-warning SENTINEL master streams'").split("\n")[3]


def fail_over(system: System) -> str:
    """Kill the master and keep it down until another was elected; then it comes back as a replica."""
    old = master(system)
    name = {f"172.30.1.2{number}": f"redis-{number}_1" for number in (1, 2, 3)}[old]
    system.engine.docker("kill", f"sg_{name}")
    elected_s = until(lambda: master(system) != old, BACK_S, "the Sentinels elect another master")
    new = master(system)
    system.engine.docker("start", f"sg_{name}")
    back_s = until(lambda: not system.not_well(), BACK_S, "all well again")
    assert master(system) == new, "the old master came back as the master"
    return f"{old} -> {new} after {elected_s:.0f} s, all healthy {back_s:.0f} s after it came back"


def check_counted(system: System, load: Load) -> str:
    """The exporter counts the load's requests, and its own totals are behind by nothing when all is committed."""
    script = 'curl -sf -H "Authorization: Bearer $(cat /secrets/exporter/exporter_token)" http://exporter:9464/metrics'

    def counted() -> float:
        lines = [line for line in system.beside(script, "", {}).splitlines() if line.startswith("http_requests_total{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    seen = counted()
    assert seen > 0.9 * load.answered, f"{seen:.0f} of {load.answered} requests are on /metrics"
    return f"{seen:.0f} of {load.answered} requests counted (a killed replica takes its last 250 ms with it)"
