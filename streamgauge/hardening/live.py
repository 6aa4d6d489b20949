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


class EmptyAnswer(Exception):
    """A web server closed the connection and said nothing."""


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
    edge_http: str | None = None
    """http://host:port of nginx; None: port 80 of the edge's host."""
    ca_file: str | None = None
    grafana: str | None = None
    prometheus: str | None = None
    docker: str | None = None
    """Name of the Compose project whose containers are looked at."""

    def named(self, option: str) -> str:
        """Return an address; Skip when it was not named."""
        found: str | None = getattr(self, option)
        if found is None:
            raise Skip(f"--{option} names no server")
        return found

    def trusted(self) -> ssl.SSLContext:
        """Return a context that trusts the authority that was named."""
        return ssl.create_default_context(cafile=self.ca_file)

    async def get(
        self, url: str, headers: Mapping[str, str] | None = None, *, tls: ssl.SSLContext | None = None, name: str = ""
    ) -> Answer:
        """Ask once, as an old client does, so that the answer ends with its connection; EmptyAnswer when there is none.

        `tls` and `name` (of the server) are what TLS is made with, unless the URL's own are meant.
        """
        at = urlsplit(url)
        host, is_secure = at.hostname or "localhost", at.scheme == "https"
        port = at.port or (443 if is_secure else 80)
        options: dict[str, Any] = {"ssl": tls or self.trusted(), "server_hostname": name or host} if is_secure else {}
        told = {"Host": host, **(headers or {})}
        lines = [f"GET {at.path or '/'} HTTP/1.0", *(f"{key}: {value}" for key, value in told.items())]
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_connection(host, port, **options)
            try:
                writer.write("\r\n".join([*lines, "", ""]).encode())
                data = b""
                while len(data) < MOST_BYTES and (more := await reader.read(65_536)):
                    data += more
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        return _answer(data)


def _answer(data: bytes) -> Answer:
    if not data:
        raise EmptyAnswer
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    told = (line.partition(":") for line in rest)
    return Answer(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in told}, body)
