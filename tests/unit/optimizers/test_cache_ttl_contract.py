"""The producers' cache emits what its lifetimes are judged by."""

from database import cache_samples as read
from producers.cache import CacheMetrics
from producers.metrics import Counter, Gauge, Histogram


def test_what_caches_emit_is_what_is_read() -> None:
    """The same names, kinds and labels."""
    own = CacheMetrics(None)
    emitted = (own.lookups, own.fills, own.filled_bytes, own.recompute, own.age, own.ttl)
    assert {family.definition.name: (type(family), family.labelnames) for family in emitted} == {
        read.LOOKUPS: (Counter, (read.LABEL, "result")),
        read.FILLS: (Counter, (read.LABEL, "changed")),
        read.BYTES: (Counter, (read.LABEL,)),
        read.RECOMPUTE: (Histogram, (read.LABEL,)),
        read.AGE: (Histogram, (read.LABEL,)),
        read.LIFETIME: (Gauge, (read.LABEL,)),
    }
