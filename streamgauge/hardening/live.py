"""Live: the addresses of what runs, as far as they were named, and one way to ask over HTTP.

Promise: every question has a deadline; an address that was not named makes its rules say skip.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

ASK_S: Final = 5.0
MOST_BYTES: Final = 1 << 20


class Skip(Exception):
    """A rule cannot be looked at; the text says why."""


class Answer(NamedTuple):
    """What a web server said."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes


@dataclass(frozen=True)
class Live:
    """Where things run. None: not named."""

    postgres: str | None = None
    """A DSN of a role that may read pg_hba_file_rules and pg_authid (the superuser)."""
    redis: str | None = None
    """URL of the streams' Redis as a user that may read CONFIG and ACL."""
    sentinel: str | None = None
    edge: str | None = None
    """https://host:port of nginx."""
    ca_file: str | None = None
    grafana: str | None = None
    prometheus: str | None = None

    def named(self, option: str) -> str:
        """Return an address; Skip when it was not named."""
        found: str | None = getattr(self, option)
        if found is None:
            raise Skip(f"--{option} names no server")
        return found

    def trusted(self) -> ssl.SSLContext:
        """Return a context that trusts the authority that was named."""
        return ssl.create_default_context(cafile=self.ca_file)

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask once, as an old client does, so that the answer ends with its connection."""
        at = urlsplit(url)
        host, is_secure = at.hostname or "localhost", at.scheme == "https"
        port = at.port or (443 if is_secure else 80)
        tls: dict[str, Any] = {"ssl": self.trusted(), "server_hostname": host} if is_secure else {}
        lines = [f"GET {at.path or '/'} HTTP/1.0", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_connection(host, port, **tls)
            try:
                writer.write("\r\n".join([*lines, "", ""]).encode())
                data = b""
                while len(data) < MOST_BYTES and (more := await reader.read(65_536)):
                    data += more
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        head, _, body = data.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        told = (line.partition(":") for line in rest)
        return Answer(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in told}, body)
