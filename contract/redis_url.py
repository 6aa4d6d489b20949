"""The address of Redis: one server, or a master that Sentinels know.

In: `redis://…`, `rediss://…`, `unix://…` as redis-py reads them, or
`redis+sentinel://[user:password@]host:port,host:port/master-name[/db]`. Out: an Address.
Promise: an address that cannot be used is a ValueError that says what is wrong with it.
"""

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

PLAIN_SCHEMES = ("redis", "rediss", "unix")
SENTINEL_PORT = 26379


class Address(NamedTuple):
    """Where Redis is. `sentinels` is empty for a plain `url`."""

    url: str
    sentinels: tuple[tuple[str, int], ...] = ()
    master: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None


def parse_redis_url(url: str) -> Address:
    """Return the parsed address; ValueError if it is none."""
    scheme = url.partition("://")[0]
    if scheme in PLAIN_SCHEMES:
        return Address(url)
    if scheme == "redis+cluster":
        raise ValueError("redis+cluster:// is not supported yet: name one server, or redis+sentinel://")
    if scheme != "redis+sentinel":
        raise ValueError(f"{scheme!r} is none of redis, rediss, unix, redis+sentinel")
    parts = urlsplit(url)
    access, _, hosts = parts.netloc.rpartition("@")
    master, _, db = parts.path.strip("/").partition("/")
    if not master or not hosts:
        raise ValueError("redis+sentinel:// needs host:port,…/master-name")
    if db and not db.isdigit():
        raise ValueError(f"database {db!r} is not a number")
    username, _, password = access.partition(":")
    return Address(
        url,
        tuple(_host(text) for text in hosts.split(",")),
        unquote(master),
        int(db or 0),
        unquote(username) or None,
        unquote(password) or None,
    )


def _host(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, SENTINEL_PORT
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)
