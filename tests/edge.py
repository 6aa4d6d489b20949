"""The edge that is deployed: the real nginx from our file over real replicas, for tests.

What differs from the file is in `configure`: ports, folders, the addresses of the replicas, and what a test changes.
"""

import http.client
import ssl
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from streamgauge.processes import free_port, wait_until
from streamgauge.stack import answers
from tests.composed import command, compose
from tests.pipeline import Pipeline
from tests.watching import binary

ROOT: Final = Path(__file__).parents[1]
CONF: Final = ROOT / "nginx/nginx.conf"
UPSTREAMS: Final = 5
"""As many replicas as our file names."""

HEADERS: Final = (
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "content-security-policy",
    "x-request-id",
)
NOWHERE: Final = "postgresql://nobody@127.0.0.1:1/none"


def lacking(headers: Collection[str]) -> list[str]:
    """Return what every answer must have and this one has not; names are in lower case."""
    return [name for name in HEADERS if name not in headers]


class Edge:
    """nginx and its replicas."""

    def __init__(self, folder: Path, redis_url: str, replicas: int = UPSTREAMS, dsn: str = NOWHERE) -> None:
        self.folder = folder
        self.tls, self.plain, self.status = free_port(), free_port(), free_port()
        self.ports = [free_port() for _ in range(replicas)]
        self.processes = Pipeline(folder, dsn, redis_url)
        self.context = ssl.create_default_context()

    def open(self) -> None:
        """Start everything."""
        for number in range(len(self.ports)):
            self.start_replica(number)
        maker = ROOT / "nginx/ssl/make-certificate.sh"
        subprocess.run([maker, self.folder / "ssl"], check=True, capture_output=True, timeout=30)
        self.context = ssl.create_default_context(cafile=self.folder / "ssl/ca.crt")
        (self.folder / "run").mkdir()
        self.processes.start("nginx", binary("nginx"), "-c", str(self.configure()), "-g", "daemon off;")
        assert wait_until(answers(self.status, "/stub_status"), 20), self.processes.log("nginx").read_text()
        assert wait_until(lambda: all(answers(port, "/healthz")() for port in self.ports), 60)

    def configure(self, faults: Mapping[str, str] | None = None) -> Path:
        """Write our file as it is, but for where things are, and for what a test wants broken."""
        text = CONF.read_text()
        changes = {
            "listen 8443": f"listen 127.0.0.1:{self.tls}",
            "listen 8080": f"listen 127.0.0.1:{self.plain}",
            "listen 8081": f"listen 127.0.0.1:{self.status}",
            "/run/nginx": str(self.folder / "run"),
            "/etc/nginx/ssl": str(self.folder / "ssl"),
            "/dev/stdout": str(self.folder / "access.log"),
        }
        # Fewer replicas stand behind several of the addresses.
        ports = [self.ports[n % len(self.ports)] for n in range(UPSTREAMS)]
        changes |= {f"172.30.0.1{n + 1}:8000": f"127.0.0.1:{port}" for n, port in enumerate(ports)}
        for ours, theirs in {**(faults or {}), **changes}.items():
            assert ours in text, f"nginx.conf has no {ours!r} any more"
            text = text.replace(ours, theirs)
        path = self.folder / "nginx.conf"
        path.write_text(text)
        return path

    def start_replica(self, number: int, faults: Mapping[str, str] | None = None, **more: str) -> None:
        """Start one replica by the compose file's command; it believes nginx about the client's address."""
        changes = {"0.0.0.0": "127.0.0.1", "8000": str(self.ports[number]), **(faults or {})}
        words = command(compose()["services"]["api-1"])
        assert changes.keys() <= set(words)
        started = (sys.executable, "-m", *(changes.get(word, word) for word in words))
        settings = {"FORWARDED_ALLOW_IPS": "127.0.0.1", "REFERENCE_WS_ORIGINS": "https://ours.example"}
        self.processes.start(f"replica-{number}", *started, env=settings | more)

    def connect(self, source: str = "127.0.0.1") -> http.client.HTTPSConnection:
        """Return a connection with TLS, from an address: limits are for each."""
        return http.client.HTTPSConnection(
            "localhost", self.tls, context=self.context, timeout=10, source_address=(source, 0)
        )

    def get(
        self, path: str, method: str = "GET", body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str]]:
        """Ask through nginx with TLS."""
        connection = self.connect()
        try:
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            answer.read()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    async def socket(self, port: int | None = None, **options: Any) -> ClientConnection:
        """Open a WebSocket through nginx, or directly to a replica."""
        if port is not None:
            return await connect(f"ws://127.0.0.1:{port}/ws", open_timeout=10, **options)
        return await connect(f"wss://localhost:{self.tls}/ws", ssl=self.context, open_timeout=10, **options)
