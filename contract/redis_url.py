"""The address of Redis: one server, a master that Sentinels know, or some nodes of a cluster.

In: `redis://…`, `rediss://…`, `unix://…` as redis-py reads them,
`redis+sentinel://[user:password@]host:port,host:port/master-name[/db][?sentinel_user=…&sentinel_password=…]`, or
`redis+cluster://[user:password@]host:port,host:port`. Out: an Address.
Promise: an address that cannot be used is a ValueError that says what is wrong with it; what is to be shown of one
holds neither user nor password.
"""

import re
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

PLAIN_SCHEMES = ("redis", "rediss", "unix")
SENTINEL_PORT = 26379
NODE_PORT = 6379


class Address(NamedTuple):
    """Where Redis is. `sentinels` and `nodes` are empty for a plain `url`."""

    url: str
    sentinels: tuple[tuple[str, int], ...] = ()
    nodes: tuple[tuple[str, int], ...] = ()
    """Of a cluster: those that are asked first for all the others."""
    master: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    """Access to the Sentinels themselves; None: they ask for none."""
    sentinel_password: str | None = None

    @property
    def sentinel_access(self) -> dict[str, str | None]:
        """Arguments of a client of a Sentinel."""
        return {"username": self.sentinel_username, "password": self.sentinel_password}


def parse_redis_url(url: str) -> Address:
    """Return the parsed address; ValueError if it is none."""
    scheme = url.partition("://")[0]
    if scheme in PLAIN_SCHEMES:
        return Address(url)
    if scheme == "redis+cluster":
        return _parse_cluster(url)
    if scheme != "redis+sentinel":
        raise ValueError(f"{scheme!r} is none of redis, rediss, unix, redis+sentinel, redis+cluster")
    parts = urlsplit(url)
    access, _, hosts = parts.netloc.rpartition("@")
    master, _, db = parts.path.strip("/").partition("/")
    if not master or not hosts:
        raise ValueError("redis+sentinel:// needs host:port,…/master-name")
    if db and not db.isdigit():
        raise ValueError(f"database {db!r} is not a number")
    username, _, password = access.partition(":")
    options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    if unknown := options.keys() - {"sentinel_user", "sentinel_password"}:
        raise ValueError(f"redis+sentinel:// has no option {min(unknown)!r}")
    return Address(
        url,
        tuple(_host(text) for text in hosts.split(",")),
        master=unquote(master),
        db=int(db or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_user") or None,
        sentinel_password=options.get("sentinel_password") or None,
    )


def shown_redis_url(url: str) -> str:
    """Return where an address leads, for a log: without access and options."""
    scheme, _, rest = url.partition("://")
    place, *options = re.split("[?#]", rest, maxsplit=1)
    # An `@` behind a `?`: a password that was not quoted, of which `place` would be the beginning.
    return f"{scheme}://{'…' if '@' in ''.join(options) else place.rpartition('@')[2]}"


def without_passwords(text: str, url: str) -> str:
    """Return a text, such as an error of the client, in which no password of this address stands."""
    parts = urlsplit(url)
    access = parts.netloc.rpartition("@")[0].partition(":")[2]
    options = [values[-1] for name, values in parse_qs(parts.query).items() if name.endswith("password")]
    for secret in filter(None, {access, unquote(access), *options}):
        text = text.replace(secret, "…")
    return text


def _parse_cluster(url: str) -> Address:
    parts = urlsplit(url)
    access, _, hosts = parts.netloc.rpartition("@")
    if not hosts:
        raise ValueError("redis+cluster:// needs host:port,…")
    if parts.path.strip("/") not in ("", "0"):
        raise ValueError("a cluster has one database only: end redis+cluster:// after the hosts")
    if parts.query:
        raise ValueError("redis+cluster:// takes no options after `?`")
    username, _, password = access.partition(":")
    nodes = tuple(_host(text, NODE_PORT) for text in hosts.split(","))
    return Address(url, nodes=nodes, username=unquote(username) or None, password=unquote(password) or None)


def _host(text: str, port_if_none: int = SENTINEL_PORT) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not text:
        raise ValueError("a host between commas is empty")
    if not colon:
        return text, port_if_none
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)
