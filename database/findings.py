"""A finding of the audit: which check failed, what is the culprit, and the two numbers that differ."""

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One fault, named."""

    check: str
    culprit: str
    expected: int | float | str
    found: int | float | str
