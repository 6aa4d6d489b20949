"""The link to Redis: one client per purpose, no hidden retries, every reply under a deadline.

redis-py's own retry is off because it would send a command twice without telling; RESP3 is off because its
maintenance notifications switch off the check for a dirty connection.
"""

from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from contract.redis_url import parse_redis_url
from contract.streams import MAX_SHARDS, SHARD_COUNT_KEY
from database.settings import RedisSettings, SettingsError

if TYPE_CHECKING:
    # redis-py types every reply as bytes or str, whatever `decode_responses` says; here replies are bytes.
    Link = Any
else:
    Link = Redis


SENTINEL_TIMEOUT_S: Final = 0.5
READ_BYTES: Final = 1 << 20
"""All that the event loop has received at once: by 64 kB, the default, the rest is moved for each."""


def open_link(settings: RedisSettings, *, block_s: float = 0.0) -> Link:
    """Open a client; `block_s` is the longest time a command of its may block on the server."""
    url = settings.redis_url.get_secret_value()
    options: dict[str, Any] = {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": settings.streamgauge_redis_timeout_s + block_s,
        "socket_connect_timeout": settings.streamgauge_redis_timeout_s,
        "health_check_interval": 0,
        "socket_read_size": READ_BYTES,
    }
    try:
        address = parse_redis_url(url)
        if not address.sentinels:
            return Redis.from_url(url, **options)
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}") from None
    # Sentinels answer at once or are skipped; without this each is asked ten times before the next.
    of_sentinels = {**options, "socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
    sentinel = Sentinel(address.sentinels, sentinel_kwargs=of_sentinels)
    access: dict[str, Any] = {"db": address.db, "username": address.username, "password": address.password}
    return sentinel.master_for(address.master, **options, **access)


async def shard_count(link: Link, wanted: int) -> int:
    """Return how many shards there are, recording `wanted` if it is more; the count never shrinks."""
    await link.set(SHARD_COUNT_KEY, wanted, nx=True)
    stored = int(await link.get(SHARD_COUNT_KEY) or wanted)
    if not 1 <= stored <= MAX_SHARDS:
        raise SettingsError(f"STREAMGAUGE_SHARDS: Redis says {stored}; 1 to {MAX_SHARDS} are possible")
    if wanted > stored:
        await link.set(SHARD_COUNT_KEY, wanted)
        return wanted
    return stored
