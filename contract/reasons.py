"""Why something was thrown away or set aside: every discard counts under one of these words.

The values are wire and label values; they are only ever appended.
"""

from enum import StrEnum


class Dropped(StrEnum):
    """Deliberate, counted loss at the producer, before a batch was sealed."""

    NONFINITE = "nonfinite"
    """NaN or an infinity."""
    OUT_OF_RANGE = "out_of_range"
    """Magnitude above `series.MAX_VALUE`."""
    NEGATIVE = "negative"
    """A counter was asked to fall."""
    NOT_A_NUMBER = "not_a_number"
    """Neither int nor float."""
    BAD_LABEL = "bad_label"
    """A label value that is too long, holds NUL or is not valid UTF-8."""
    SERIES_LIMIT = "series_limit"
    """A gauge beyond the live-series guard (counters and histograms go to the overflow series instead)."""
    SHUTDOWN = "shutdown"
    """Emitted after the client was closed, or not accepted by Redis within the exit deadline."""


class Quarantined(StrEnum):
    """Why an entry can never be applied; kept in PostgreSQL with its bytes."""

    BAD_MAGIC = "bad_magic"
    TRUNCATED = "truncated"
    CHECKSUM = "checksum"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    """The checksum holds, the content does not."""
    FUTURE = "future"
    SEQ_JUMP = "seq_jump"
    """A sequence number too far above everything seen from its producer."""
    RUN_LIMIT = "run_limit"
    """Of a load-test run, while as many are kept as may be."""
    CONFLICT = "conflict"
    """The same producer and sequence number with another checksum: forged or corrupted."""
    KIND_CONFLICT = "kind_conflict"
    """A metric name already known as another kind; only those columns are set aside."""
    DATABASE = "database"
    """PostgreSQL refused this entry's data when it was tried alone."""
    CRASHED = "crashed"
    """Decoding it ended a child process."""


class Parked(StrEnum):
    """Why an entry waits in PostgreSQL: valid, but not to be folded by this aggregator now."""

    UNKNOWN_VERSION = "unknown_version"
    UNKNOWN_HISTORY = "unknown_history"
    """Sealed longer ago than ledger rows live, by a producer that has none."""
