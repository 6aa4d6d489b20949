"""Cache lifetimes: what they should be per class of keys, and how that reaches the caches.

Promise: the mathematics is pure and stands in `rules`; only `publish` writes to Redis.
"""
