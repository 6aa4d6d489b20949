"""Redis as it is deployed: our files and redis/start.sh, on addresses of the loopback network.

In: a folder. Out: running nodes and Sentinels. What differs from production is the environment that start.sh reads
(ports, folders), nothing in the files. Promise: `close` leaves no process.
"""

import os
import secrets
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

import redis

from streamgauge.processes import free_port, start, stop, wait_until
from tests.composed import compose

FILES: Final = Path(__file__).parents[1] / "redis"
USERS: Final = (
    "admin", "producer", "aggregator", "exporter", "cache", "metrics", "replica", "sentinel", "health", "client",
)  # fmt: skip
STREAMS: Final = ("127.0.0.21", "127.0.0.22", "127.0.0.23")
SENTINELS: Final = ("127.0.0.24", "127.0.0.25", "127.0.0.26")
CACHE: Final = "127.0.0.27"
KINDS: Final = {"streams": "redis-1", "cache": "redis-cache", "sentinel": "sentinel-1"}
"""Arguments of start.sh, and a service that is started with each."""

ELECTED_S: Final = 150.0
"""A vote that no Sentinel wins, as on a busy machine, is repeated after two of their failover time-outs of 60 s."""


class Deployment:
    """Master, replicas, Sentinels and a cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.sentinel_port = free_port(), free_port()
        self.passwords = {user: secrets.token_urlsafe(12) for user in USERS}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "secrets").mkdir()
        self._write_secrets()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for address in (*SENTINELS, *STREAMS, CACHE):
            self.kill(address)

    def renew_secrets(self) -> None:
        """Give every user another password; servers know of it when they are started again."""
        self.passwords = {user: secrets.token_urlsafe(12) for user in USERS}
        self._write_secrets()

    def secrets(self, kind: str) -> Path:
        """Return the folder of what a kind of server is given: what the compose file names for it, and nothing else."""
        return self.folder / "secrets" / kind

    def _write_secrets(self) -> None:
        services = compose()["services"]
        for kind, service in KINDS.items():
            self.secrets(kind).mkdir(exist_ok=True)
            for name in services[service]["secrets"]:
                user = name.removeprefix("redis_").removesuffix("_password")
                (self.secrets(kind) / name).write_text(f"{self.passwords[user]}\n")

    def start(self, address: str, kind: str, **settings: str) -> subprocess.Popen[bytes]:
        """Start a server by the entrypoint."""
        home = self.folder / address
        (home / "data").mkdir(parents=True, exist_ok=True)
        env = {
            "PATH": os.environ["PATH"],
            "REDIS_NODE": address,
            "REDIS_FIRST_MASTER": STREAMS[0],
            "REDIS_SENTINELS": " ".join(SENTINELS),
            "REDIS_CONFIG": str(FILES),
            "REDIS_DATA": str(home / "data"),
            "REDIS_RUN": str(home / "run"),
            "REDIS_SECRETS": str(self.secrets(kind)),
            "REDIS_PORT": str(self.port),
            "REDIS_SENTINEL_PORT": str(self.sentinel_port),
        }
        command = ("sh", str(FILES / "start.sh"), kind)
        self.processes[address] = start(command, self.log(address), env=env | settings)
        return self.processes[address]

    def open(self) -> None:
        """Start streams and Sentinels, and wait until a failover would be possible."""
        for address in STREAMS:
            self.start(address, "streams")
        for address in SENTINELS:
            self.start(address, "sentinel")
        assert wait_until(lambda: self.replicas() == 2, 30), self.log(STREAMS[0]).read_text()
        assert wait_until(self.has_quorum, 60), self.log(SENTINELS[0]).read_text()

    def log(self, address: str) -> Path:
        """Return where a server logs."""
        return self.folder / f"{address}.log"

    def kill(self, address: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a server that this deployment started."""
        process = self.processes.pop(address, None)
        if process is not None:
            stop(process, number, 10)

    def client(self, user: str | None, address: str | None = None) -> Any:
        """Return a client of a node (default: the master) as a user (None: a stranger)."""
        password = None if user is None else self.passwords[user]
        host = address or self.master()
        return redis.Redis(host=host, port=self.port, username=user, password=password, protocol=2, socket_timeout=5)

    def sentinel(self, user: str | None, address: str = SENTINELS[0]) -> Any:
        """Return a client of a Sentinel."""
        password = None if user is None else self.passwords[user]
        return redis.Redis(
            host=address, port=self.sentinel_port, username=user, password=password, protocol=2, socket_timeout=5
        )

    def url(self, user: str) -> str:
        """Return the address that a service is given."""
        hosts = ",".join(f"{address}:{self.sentinel_port}" for address in SENTINELS)
        access = f"sentinel_user=client&sentinel_password={self.passwords['client']}"
        return f"redis+sentinel://{user}:{self.passwords[user]}@{hosts}/streams?{access}"

    def master(self) -> str:
        """Return the master's address as a Sentinel has it; the first one while none answers."""
        for address in SENTINELS:
            if address not in self.processes:
                continue
            try:
                with self.sentinel("client", address) as client:
                    found = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "streams")
                return cast("tuple[bytes, bytes]", found)[0].decode()
            except redis.RedisError:
                continue
        return STREAMS[0]

    def replicas(self) -> int:
        """Return how many replicas the first master has that are online."""
        try:
            with self.client("admin", self.master()) as client:
                info: dict[str, Any] = client.info("replication")
        except redis.RedisError:
            return -1
        return sum(
            value["state"] == "online" for key, value in info.items() if key.startswith("slave") and key[5:].isdigit()
        )

    def has_quorum(self) -> bool:
        """Whether every Sentinel knows the two others and the replicas."""
        for address in SENTINELS:
            try:
                with self.sentinel("admin", address) as client:
                    told = client.sentinel_master("streams")
            except redis.RedisError:
                return False
            if (told["num-other-sentinels"], told["num-slaves"]) != (2, 2):
                return False
        return True


def answers(client: Any) -> bool:
    """Whether a server answers."""
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
