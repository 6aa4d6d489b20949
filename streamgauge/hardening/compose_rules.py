"""Rules D1-D14: what containers may do, from the compose file, and from Docker where it runs.

The numbers are those of docs/hardening.md; most follow the CIS Docker benchmark (docker-bench 4.1 to 5.31).
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import yaml

from streamgauge.hardening.containers import live_of
from streamgauge.hardening.files import Files, environment, interpolate, too_open
from streamgauge.hardening.live import Skip
from streamgauge.hardening.rule import Rule

HOST_SPACES: Final = ("network_mode", "pid", "ipc", "uts", "userns_mode", "cgroup")
ADDED: Final[Mapping[str, frozenset[str]]] = {
    "nginx": frozenset({"NET_BIND_SERVICE"}),
    "postgres": frozenset({"CHOWN", "SETUID", "SETGID", "DAC_OVERRIDE", "FOWNER"}),
}
"""Capabilities that a service, by how its name begins, may add."""
ROOT: Final = frozenset({"alloy"})
"""Services that may run as root, without a capability of root's: Docker's log files are root's."""
PUBLISHED: Final = frozenset({"80", "443"})
SECRET: Final = re.compile(r"(password|passwd|secret|token|api_key|private_key)", re.IGNORECASE)


def each(files: Files) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Return services by name."""
    return sorted(files.services.items())


def _tree(value: Any, *keys: str) -> Mapping[str, Any]:
    """Return the mapping at a path; an empty one where there is none."""
    for key in keys:
        value = cast("Mapping[str, Any]", value).get(key) or {}
    return cast("Mapping[str, Any]", value)


def _listed(service: Mapping[str, Any], key: str) -> list[Any]:
    found: Any = service.get(key) or []
    return cast("list[Any]", found if isinstance(found, list) else [found])


def memory_limit(service: Mapping[str, Any]) -> int:
    """Return the bytes of memory that a service may use; 0: not limited."""
    text = str(_tree(service, "deploy", "resources", "limits").get("memory") or service.get("mem_limit") or "0")
    found = re.fullmatch(r"(\d+)([bkmg]?)b?", text.strip().lower())
    return int(found[1]) << {"": 0, "b": 0, "k": 10, "m": 20, "g": 30}[found[2]] if found else 0


def d1(files: Files) -> Iterable[str]:
    """Not privileged, no namespace of the host."""
    for name, service in each(files):
        if service.get("privileged"):
            yield f"{name} is privileged"
        yield from (f"{name}: {key} is the host's" for key in HOST_SPACES if service.get(key) == "host")


def d2(files: Files) -> Iterable[str]:
    """All capabilities dropped, few added."""
    for name, service in each(files):
        if "ALL" not in _listed(service, "cap_drop"):
            yield f"{name} does not drop all capabilities"
        allowed = next((found for start, found in ADDED.items() if name.startswith(start)), frozenset[str]())
        extra = set(map(str, _listed(service, "cap_add"))) - allowed
        if extra:
            yield f"{name} adds {', '.join(sorted(extra))}"


def d3(files: Files) -> Iterable[str]:
    """No new privileges."""
    for name, service in each(files):
        options = [str(one).replace("=", ":") for one in _listed(service, "security_opt")]
        if not {"no-new-privileges:true", "no-new-privileges"} & set(options):
            yield f"{name} may gain privileges"


def d4(files: Files) -> Iterable[str]:
    """Read-only root."""
    return [f"{name} can write its root" for name, service in each(files) if service.get("read_only") is not True]


def d5(files: Files) -> Iterable[str]:
    """Limits."""
    for name, service in each(files):
        limits = _tree(service, "deploy", "resources", "limits")
        has = {
            "memory": limits.get("memory") or service.get("mem_limit"),
            "cpu": limits.get("cpus") or service.get("cpus"),
            "pids": limits.get("pids") or service.get("pids_limit"),
        }
        yield from (f"{name} has no {what} limit" for what, limit in has.items() if not limit)


def d6(files: Files) -> Iterable[str]:
    """Not root; an image whose entrypoint changes the user by itself is named with what it needs for that."""
    for name, service in each(files):
        user = str(service.get("user") or "")
        if name in ROOT:
            continue
        if user.partition(":")[0] in ("0", "root"):
            yield f"{name} runs as root"
        elif not user and "SETUID" not in _listed(service, "cap_add"):
            yield f"{name} names no user"


def d7(files: Files) -> Iterable[str]:
    """A health check."""
    for name, service in each(files):
        check: Mapping[str, Any] = service.get("healthcheck") or {}
        if check.get("disable") or not check.get("test"):
            yield f"{name} has no health check"


def d8(files: Files) -> Iterable[str]:
    """No Docker socket."""
    return [
        f"{name} mounts the Docker socket"
        for name, service in each(files)
        if any("docker.sock" in str(volume) for volume in _listed(service, "volumes"))
    ]


def d9(files: Files) -> Iterable[str]:
    """Only 80 and 443 are published."""
    for name, service in each(files):
        for port in _listed(service, "ports"):
            published = _published(port)
            if published is None or published[1] not in PUBLISHED:
                host = "" if published is None else published[0]
                if host not in ("127.0.0.1", "::1"):
                    yield f"{name} publishes {port}"


def _published(port: Any) -> tuple[str, str] | None:
    """Return (address, port) on the host; None where Docker chooses one."""
    if isinstance(port, dict):
        given = cast("dict[str, Any]", port)
        return (str(given.get("host_ip", "")), str(given["published"])) if "published" in given else None
    parts = str(port).partition("/")[0].rsplit(":", 2)
    if len(parts) == 1:
        return None
    return (parts[0] if len(parts) == 3 else "", parts[-2])


def d10(files: Files) -> Iterable[str]:
    """Images are pinned by digest: what a tag names can change. Our own are built from those of the Dockerfile."""
    found = {str(service.get("image") or name) for name, service in each(files) if "build" not in service}
    found |= {base for _, service in each(files) if "build" in service for base in _bases(files, service)}
    tags = {image: image.rpartition("/")[2].partition(":")[2] for image in found if "@sha256:" not in image}
    yield from (f"{image} is not pinned" for image, tag in sorted(tags.items()) if tag in ("", "latest"))
    if by_tag := sorted(image for image, tag in tags.items() if tag not in ("", "latest")):
        yield f"tag only: {', '.join(by_tag)}"


def _bases(files: Files, service: Mapping[str, Any]) -> Iterable[str]:
    """Return the images that one of ours begins with."""
    build = _tree(service, "build")
    text = interpolate(files.text(str(build.get("dockerfile") or "Dockerfile")), _tree(build, "args"))
    stages = [line.split()[1:] for line in text.splitlines() if line.startswith("FROM ")]
    return {words[0] for words in stages} - {words[-1] for words in stages if len(words) == 3}


def d11(files: Files) -> Iterable[str]:
    """No secret in the environment; the files that hold them are their owner's alone."""
    faults = [*told_secrets(files), *_open_secrets(files)]
    if not faults and not any(path.exists() for path in _secret_files(files)):
        raise Skip("nothing in the environment; secrets are not made yet: scripts/bootstrap.sh makes them")
    return faults


def _secret_files(files: Files) -> list[Path]:
    secrets = _tree(files.compose, "secrets")
    return [files.root / str(one["file"]) for one in secrets.values() if "file" in one]


def _open_secrets(files: Files) -> Iterable[str]:
    for path in _secret_files(files):
        if path.exists() and (mode := too_open(path)):
            yield f"{path.relative_to(files.root)} has mode {mode}"


def told_secrets(files: Files) -> Iterable[str]:
    """Yield what stands in environments and should not."""
    for name, service in each(files):
        for key, value in environment(service).items():
            if SECRET.search(key) and value and not key.endswith(("_FILE", "__FILE")):
                yield f"{name}: {key} holds a secret"
            elif re.search(r"://[^/@\s:]+:[^/@\s$]+@", value):
                yield f"{name}: {key} holds an address with a password"
    for name in sorted(_tree(files.compose, "secrets")):
        if "environment" in _tree(files.compose, "secrets", name):
            yield f"secret {name} comes from an environment variable"


DATA: Final = ("postgres-primary", "postgres-replica", "redis-", "sentinel-")
"""How the names of services with data begin."""


def exposed(files: Files, starts: tuple[str, ...] = DATA) -> set[str]:
    """Return the data services that stand on a network which is not internal."""
    networks = _tree(files.compose, "networks")
    internal = {name for name in networks if _tree(networks, name).get("internal") is True}
    found: set[str] = set()
    for name, service in each(files):
        joined = {str(one) for one in service.get("networks") or ["default"]}
        if name.startswith(starts) and "exporter" not in name and joined - internal:
            found.add(name)
    return found


def d12(files: Files) -> Iterable[str]:
    """Networks of our own; data services stand on internal ones only."""
    yield from (f"{name} is on the default network" for name, told in each(files) if not told.get("networks"))
    yield from (f"{name} is on a network that is not internal" for name in sorted(exposed(files)))


def d13(files: Files) -> Iterable[str]:
    """Restarts are set; they are bounded, or the alert RestartLoop tells of a loop."""
    told = _expression(files, "RestartLoop")
    targets = files.text("monitoring/prometheus/prometheus.yml")
    if not told:
        yield "no alert tells of a restart loop"
    yield from without_restarts(files)
    for name, service in each(files):
        if told and not _policy(service).startswith("on-failure:"):
            yield from _unseen_loop(name, told, targets)


def without_restarts(files: Files) -> Iterable[str]:
    """Yield who is not started again."""
    return [f"{name} says nothing of restarts" for name, service in each(files) if not _policy(service)]


def _policy(service: Mapping[str, Any]) -> str:
    return str(service.get("restart") or _tree(service, "deploy", "restart_policy").get("condition") or "")


STARTS: Final[Mapping[str, str]] = {
    "redis-exporter": "process_start_time_seconds",
    "postgres-exporter": "process_start_time_seconds",
    "redis-": "redis_start_time_seconds",
    "sentinel-": "redis_start_time_seconds",
    "postgres-": "postgres_node_start_time_seconds",
    "api": "probe_success",
    "nginx": "probe_success",
    "aggregator": "streamgauge_aggregators",
    "": "process_start_time_seconds",
}
"""What tells that a service started, by how its name begins; the first that fits."""


def _unseen_loop(name: str, told: str, targets: str) -> Iterable[str]:
    metric = next(metric for start, metric in STARTS.items() if name.startswith(start))
    if not re.search(rf"\b{metric}\b", told):
        yield f"RestartLoop does not read {metric}, which tells of {name}"
    host = "localhost" if name == "prometheus" else re.escape(name)
    is_scraped = re.search(rf"\b{host}:\d|names: \[{host}\]", targets) is not None
    if metric == "process_start_time_seconds" and not is_scraped:
        yield f"Prometheus does not scrape {name}, whose process tells of its start"


def _expression(files: Files, alert: str) -> str:
    """Return what an alert of meta.yml reads; empty where there is none."""
    found: Any = yaml.safe_load(files.text("monitoring/prometheus/rules/meta.yml"))
    groups = cast("list[Mapping[str, Any]]", found["groups"])
    rules = [rule for group in groups for rule in cast("list[Mapping[str, Any]]", group["rules"])]
    return next((str(rule["expr"]) for rule in rules if rule.get("alert") == alert), "")


def d14(files: Files) -> Iterable[str]:
    """The kernel's filters stay on."""
    for name, service in each(files):
        options = [str(one).replace("=", ":") for one in _listed(service, "security_opt")]
        off = [one for one in options if one.endswith(":unconfined")]
        yield from (f"{name}: {one}" for one in off)


RULES: Final = (
    Rule(
        "D1",
        "critical",
        "no container is privileged or in a namespace of the host",
        "remove the option",
        d1,
        live_of(d1),
    ),
    Rule("D2", "warning", "capabilities are dropped", "cap_drop: [ALL], and add only what is listed", d2, live_of(d2)),
    Rule("D3", "warning", "no process gains privileges", "security_opt: [no-new-privileges:true]", d3, live_of(d3)),
    Rule(
        "D4",
        "warning",
        "root file systems are read-only",
        "read_only: true, and tmpfs for what is written",
        d4,
        live_of(d4),
    ),
    Rule(
        "D5",
        "warning",
        "memory, CPU and processes are limited",
        "deploy.resources.limits: memory, cpus, pids",
        d5,
        live_of(d5),
    ),
    Rule("D6", "critical", "nobody runs as root", "user: a number that is not 0", d6, live_of(d6)),
    Rule("D7", "warning", "every service has a health check", "healthcheck.test", d7, live_of(d7)),
    Rule(
        "D8",
        "critical",
        "the Docker socket is mounted nowhere",
        "remove the mount: it is as good as root",
        d8,
        live_of(d8),
    ),
    Rule(
        "D9", "critical", "only 80 and 443 are published", "remove the port, or bind it to 127.0.0.1", d9, live_of(d9)
    ),
    Rule("D10", "warning", "images are pinned by digest", "NAME_DIGEST=@sha256:… in .env", d10),
    Rule(
        "D11",
        "critical",
        "no secret stands in the environment",
        "secrets as files, and NAME_FILE",
        d11,
        live_of(told_secrets),
    ),
    Rule(
        "D12", "critical", "data services are on internal networks", "networks.<data>.internal: true", d12, live_of(d12)
    ),
    Rule(
        "D13",
        "warning",
        "restarts are set and a loop is told",
        "restart: unless-stopped; alert RestartLoop",
        d13,
        live_of(without_restarts),
    ),
    Rule("D14", "critical", "seccomp and AppArmor are on", "remove `unconfined`", d14, live_of(d14)),
)
