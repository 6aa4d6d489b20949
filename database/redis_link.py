"""The services' link to Redis: one client per purpose, no hidden retries, every reply under a deadline.

In: settings. Out: a client of the server, of the master that Sentinels name, or of a cluster; nothing is connected
yet.
redis-py's own retry is off because it would send a command twice without telling; RESP3 is off because its
maintenance notifications switch off the check for a dirty connection.
"""

import logging
from math import inf
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from contract.redis_url import parse_redis_url
from database.cluster_link import ClusterLink
from database.redis_connection import guarded
from database.settings import RedisSettings, SettingsError

if TYPE_CHECKING:
    # redis-py types every reply as bytes or str, whatever `decode_responses` says; here replies are bytes.
    Link = Any
else:
    Link = Redis


log = logging.getLogger(__name__)

SENTINEL_TIMEOUT_S: Final = 0.5
READ_BYTES: Final = 1 << 20
"""All that the event loop has received at once: by 64 kB, the default, the rest is moved for each."""


def link_options(settings: RedisSettings, *, block_s: float = 0.0, at_most_s: float = inf) -> dict[str, Any]:
    """Return a client's options; `block_s` is the longest time a command may block on the server.

    A reply is waited for as long as the settings say, `at_most_s` at most.
    """
    timeout_s = min(settings.streamgauge_redis_timeout_s, at_most_s)
    return {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_s + block_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": 0,
        "socket_read_size": READ_BYTES,
    }


def open_link(settings: RedisSettings, *, block_s: float = 0.0, at_most_s: float = inf) -> Link:
    """Open a client (times as in `link_options`); SettingsError when the URL is none."""
    url = settings.redis_url.get_secret_value()
    options = link_options(settings, block_s=block_s, at_most_s=at_most_s)
    try:
        address = parse_redis_url(url)
        if address.nodes:
            return ClusterLink(address.nodes, {**options, "username": address.username, "password": address.password})
        if not address.sentinels:
            return guarded(Redis.from_url(url, **options))
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}") from None
    # Sentinels answer at once or are skipped; without this each is asked ten times before the next.
    of_sentinels = {**options, "socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
    sentinel = Sentinel(address.sentinels, sentinel_kwargs=of_sentinels | address.sentinel_access)
    access: dict[str, Any] = {"db": address.db, "username": address.username, "password": address.password}
    return guarded(sentinel.master_for(address.master, **options, **access))


async def require_noeviction(link: Link) -> None:
    """SettingsError unless a server that is full refuses: any other policy throws away streams, or what expires.

    What expires holds producers back and says who reads a shard.
    """
    try:
        policy = (await link.info("memory")).get("maxmemory_policy", "noeviction")
    except ResponseError as error:  # the server for trying out has no INFO
        log.warning("eviction_policy_unknown", extra={"error": str(error)})
        return
    if policy != "noeviction":
        raise SettingsError(f"REDIS_URL: this server has maxmemory-policy {policy}, noeviction is needed")
