"""Containers: what Docker says of a project that runs, in the words of a compose file, for the same rules.

In: the name of a Compose project, and the command `docker` with the engine that it is set up for. Out: Files without
files. Promise: it only asks; where no engine answers, or nothing of the project runs, its rules say skip.
"""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from streamgauge.hardening.files import Files
from streamgauge.hardening.live import ASK_S, Live, Skip

LABEL: Final = "com.docker.compose"


class Containers(Files):
    """What runs, as if a compose file had said so."""

    def __init__(self, services: Mapping[str, Mapping[str, Any]], networks: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(Path())
        self.compose = {"services": services, "networks": networks}


def live_of(static: Callable[[Files], Iterable[str]]) -> Callable[[Live], Awaitable[Iterable[str]]]:
    """Return a live check that judges containers as `static` judges the compose file."""

    async def look(live: Live) -> Iterable[str]:
        return list(static(await containers(live.named("docker"))))

    return look


async def containers(project: str) -> Containers:
    """Return what runs of a project; Skip when that cannot be found out."""
    mine = f"label={LABEL}.project={project}"
    numbers = (await _docker("ps", "-q", "--filter", mine)).split()
    if not numbers:
        raise Skip(f"no container of the project {project} runs")
    found: list[dict[str, Any]] = json.loads(await _docker("inspect", *numbers))
    names = (await _docker("network", "ls", "-q", "--filter", mine)).split()
    networks: list[dict[str, Any]] = json.loads(await _docker("network", "inspect", *names)) if names else []
    return Containers(
        {one["Config"]["Labels"][f"{LABEL}.service"]: as_service(one) for one in found},
        {one["Name"]: {"internal": one["Internal"]} for one in networks},
    )


async def _docker(*arguments: str) -> str:
    if shutil.which("docker") is None:
        raise Skip("there is no command docker")
    process = await asyncio.create_subprocess_exec(
        "docker", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(ASK_S):
            said, error = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Skip("docker does not answer") from None
    if process.returncode:
        raise Skip(f"docker does not answer: {error.decode().strip()[:100]}")
    return said.decode()


def as_service(inspected: Mapping[str, Any]) -> dict[str, Any]:
    """Say of a container what a compose file would say of its service."""
    host, config = inspected["HostConfig"], inspected["Config"]
    check: Mapping[str, Any] = config.get("Healthcheck") or {}
    policy: Mapping[str, Any] = host["RestartPolicy"]
    most = policy.get("MaximumRetryCount") or 0
    return {
        "image": config["Image"],
        "user": config["User"],
        "environment": config["Env"] or [],
        "healthcheck": {"test": check.get("Test"), "disable": check.get("Test") == ["NONE"]},
        "privileged": host["Privileged"],
        "network_mode": host["NetworkMode"],
        "pid": host["PidMode"],
        "ipc": host["IpcMode"],
        "uts": host["UTSMode"],
        "userns_mode": host["UsernsMode"],
        "cap_add": host["CapAdd"] or [],
        "cap_drop": host["CapDrop"] or [],
        "security_opt": host["SecurityOpt"] or [],
        "read_only": host["ReadonlyRootfs"],
        "mem_limit": host["Memory"],
        "cpus": host["NanoCpus"] or host["CpuQuota"],
        "pids_limit": host["PidsLimit"],
        "restart": "" if policy["Name"] in ("", "no") else f"{policy['Name']}:{most}" if most else policy["Name"],
        "volumes": [f"{mount['Source']}:{mount['Destination']}" for mount in inspected["Mounts"]],
        "ports": _ports(host["PortBindings"] or {}),
        "networks": list(inspected["NetworkSettings"]["Networks"]),
    }


def _ports(bindings: Mapping[str, list[Mapping[str, str]] | None]) -> list[str]:
    pairs = [(inside, one) for inside, bound in bindings.items() for one in bound or ()]
    return [f"{one['HostIp']}:{one['HostPort']}:{inside}" for inside, one in pairs]
