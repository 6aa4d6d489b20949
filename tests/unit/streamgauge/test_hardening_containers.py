"""Hardening rules on what Docker says: a fake command `docker` answers as the real one does, with one thing wrong."""

import asyncio
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest

from streamgauge.hardening.__main__ import RULES, check_live
from streamgauge.hardening.live import Live
from streamgauge.hardening.rule import Status, Verdict

GOOD: Final[dict[str, Any]] = {
    "Config": {
        "Image": "redis:7.2",
        "User": "999:999",
        "Env": ["POSTGRES_PASSWORD_FILE=/run/secrets/x", "PATH=/bin"],
        "Healthcheck": {"Test": ["CMD", "check"]},
        "Labels": {"com.docker.compose.service": "redis-1"},
    },
    "HostConfig": {
        "Privileged": False,
        "NetworkMode": "sg_data",
        "PidMode": "",
        "IpcMode": "private",
        "UTSMode": "",
        "UsernsMode": "",
        "CapAdd": None,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "ReadonlyRootfs": True,
        "Memory": 1 << 30,
        "NanoCpus": 1_000_000_000,
        "CpuQuota": 0,
        "PidsLimit": 300,
        "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
        "PortBindings": {"8080/tcp": [{"HostIp": "", "HostPort": "80"}]},
    },
    "Mounts": [{"Source": "/var/lib/docker/volumes/x/_data", "Destination": "/data"}],
    "NetworkSettings": {"Networks": {"sg_data": {}}},
}
FAULTS: Final[dict[str, tuple[str, str, Any]]] = {
    "D1": ("HostConfig", "PidMode", "host"),
    "D2": ("HostConfig", "CapAdd", ["SYS_ADMIN"]),
    "D3": ("HostConfig", "SecurityOpt", []),
    "D4": ("HostConfig", "ReadonlyRootfs", False),
    "D5": ("HostConfig", "PidsLimit", None),
    "D6": ("Config", "User", "0:0"),
    "D7": ("Config", "Healthcheck", {"Test": ["NONE"]}),
    "D8": ("", "Mounts", [{"Source": "/var/run/docker.sock", "Destination": "/s"}]),
    "D9": ("HostConfig", "PortBindings", {"6379/tcp": [{"HostIp": "0.0.0.0", "HostPort": "6379"}]}),
    "D11": ("Config", "Env", ["POSTGRES_PASSWORD=hunter2"]),
    "D12": ("NetworkSettings", "Networks", {"sg_data": {}, "bridge": {}}),
    "D13": ("HostConfig", "RestartPolicy", {"Name": "no", "MaximumRetryCount": 0}),
    "D14": ("HostConfig", "SecurityOpt", ["no-new-privileges:true", "seccomp=unconfined"]),
}
OF_CONTAINERS: Final = {rule.id for rule in RULES if rule.id.startswith("D")}

Judge = Callable[[dict[str, Any]], dict[str, Verdict]]


def judged() -> dict[str, Verdict]:
    """Judge what runs; return what is said of containers."""
    return {one.id: one for one in asyncio.run(check_live(Live(docker="sg"))) if one.id in OF_CONTAINERS}


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Judge one container by its inspection."""

    def look(inspected: dict[str, Any]) -> dict[str, Verdict]:
        networks = [{"Name": "sg_data", "Internal": True}]
        for name, answer in (("inspect", [inspected]), ("network", networks)):
            (tmp_path / name).write_text(json.dumps(answer))
        command = tmp_path / "docker"
        command.write_text(f"""#!/bin/sh
case "$*" in
    "ps -q --filter label=com.docker.compose.project=sg" | "network ls"*) echo 0123 ;;
    "inspect 0123") cat {tmp_path}/inspect ;;
    "network inspect 0123") cat {tmp_path}/network ;;
    *) exit 1 ;;
esac
""")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return judged()

    return look


def test_a_careful_container_holds_every_rule_and_digests_are_not_told(judge: Judge) -> None:
    found = judge(GOOD)
    assert {name for name, one in found.items() if one.status is Status.PASS} == OF_CONTAINERS - {"D10"}
    assert found["D10"].status is Status.SKIP
    assert FAULTS.keys() == OF_CONTAINERS - {"D10"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_container_is_found_by_its_rule_alone(name: str, judge: Judge) -> None:
    part, key, value = FAULTS[name]
    broken = deepcopy(GOOD)
    (broken[part] if part else broken)[key] = value
    found = judge(broken)
    assert {one.id for one in found.values() if one.status is Status.FAIL} == {name}
    assert "redis-1" in found[name].evidence


def test_an_engine_that_does_not_answer_is_a_skip_and_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = {"there is no command docker"}
    assert {one.evidence for name, one in judged().items() if name != "D10"} == said
    for script, evidence in (("echo 'no daemon' >&2; exit 1", "docker does not answer: no daemon"), ("exit 0", "runs")):
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "docker").chmod(0o755)
        found = judged()
        assert {one.status for one in found.values()} == {Status.SKIP}
        assert all(evidence in one.evidence for name, one in found.items() if name != "D10")
