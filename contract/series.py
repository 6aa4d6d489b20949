"""Series identity: the canonical key is the Prometheus text form with sorted, escaped labels.

In: metric names and label sets. Out: key bytes such as `http_requests_total{method="GET"}`, and back.
Promise: one label set has exactly one key; a parsed key renders to the same bytes; nothing that could
break an exposition line (quotes, newlines, NUL, bad UTF-8) gets through.
Names and label rules are those of the Prometheus data model and text format 0.0.4.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

MAX_NAME_BYTES: Final = 200
MAX_LABELS: Final = 32
MAX_LABEL_VALUE_BYTES: Final = 256
MAX_KEY_BYTES: Final = 4096
MAX_VALUE: Final = 1e100
"""Largest magnitude of one emitted value: far above any measure, far below what could overflow a sum."""

OVERFLOW_LABELS: Final = {"overflow": "true"}
"""The label set that takes what a series budget has no room for."""

RESERVED_LABELS: Final = frozenset({"le", "quantile", "job", "instance"})

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_PAIR = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"')
_ESCAPED = re.compile(r"\\([\\\"n])")


class SeriesError(ValueError):
    """A metric name, label name, label value or key that the rules refuse; the text names the part."""


def check_metric_name(name: str) -> str:
    """Return `name` if it is a legal metric name, else raise SeriesError."""
    if not _METRIC_NAME.fullmatch(name):
        raise SeriesError(f"metric name {name!r} does not match [a-zA-Z_:][a-zA-Z0-9_:]*")
    if len(name) > MAX_NAME_BYTES:
        raise SeriesError(f"metric name is {len(name)} bytes long; at most {MAX_NAME_BYTES} are allowed")
    return name


def check_label_name(name: str) -> str:
    """Return `name` if it is a legal, unreserved label name, else raise SeriesError."""
    if not _LABEL_NAME.fullmatch(name) or name.startswith("__"):
        raise SeriesError(f"label name {name!r} does not match [a-zA-Z_][a-zA-Z0-9_]* or starts with __")
    if name in RESERVED_LABELS:
        raise SeriesError(f"label name {name!r} is reserved")
    if len(name) > MAX_NAME_BYTES:
        raise SeriesError(f"label name is {len(name)} bytes long; at most {MAX_NAME_BYTES} are allowed")
    return name


def check_label_value(name: str, value: str) -> str:
    """Return `value` if it may stand in a key, else raise SeriesError naming the label."""
    if "\0" in value:
        raise SeriesError(f"value of label {name!r} holds a NUL character")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise SeriesError(f"value of label {name!r} is not valid Unicode") from None
    if size > MAX_LABEL_VALUE_BYTES:
        raise SeriesError(f"value of label {name!r} is {size} bytes long; at most {MAX_LABEL_VALUE_BYTES} are allowed")
    return value


def escape_label_value(value: str) -> str:
    """Escape backslash, double quote and newline as the text format asks."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _unescape(value: str) -> str:
    return _ESCAPED.sub(lambda m: "\n" if m[1] == "n" else m[1], value)


def series_key(name: str, labels: Mapping[str, str] | Sequence[tuple[str, str]] = ()) -> bytes:
    """Render the canonical key of a series; validates all parts (SeriesError names the bad one)."""
    given: Iterable[tuple[str, str]] = labels.items() if isinstance(labels, Mapping) else labels
    pairs = sorted(given)
    check_metric_name(name)
    if len(pairs) > MAX_LABELS:
        raise SeriesError(f"{name} has {len(pairs)} labels; at most {MAX_LABELS} are allowed")
    for label, value in pairs:
        check_label_name(label)
        check_label_value(label, value)
    if not pairs:
        return name.encode()
    body = ",".join(f'{label}="{escape_label_value(value)}"' for label, value in pairs)
    key = f"{name}{{{body}}}".encode()
    if len(key) > MAX_KEY_BYTES:
        raise SeriesError(f"the key of {name} is {len(key)} bytes long; at most {MAX_KEY_BYTES} are allowed")
    return key


def parse_key(key: bytes) -> tuple[str, dict[str, str]]:
    """Split a canonical key into metric name and labels; SeriesError if it is not canonical."""
    try:
        name, labels = _split_key(key)
        canonical = series_key(name, labels) == key
    except (UnicodeDecodeError, SeriesError) as error:
        raise SeriesError(f"key {key[:80]!r}: {error}") from None
    if not canonical:
        raise SeriesError(f"key {key[:80]!r} is not in canonical form")
    return name, labels


def _split_key(key: bytes) -> tuple[str, dict[str, str]]:
    name, brace, rest = key.partition(b"{")
    if not brace:
        return name.decode(), {}
    labels: dict[str, str] = {}
    at = 0
    while match := _PAIR.match(rest, at):
        labels[match[1].decode()] = _unescape(match[2].decode())
        at = match.end()
        if rest[at : at + 1] != b",":
            break
        at += 1
    if rest[at:] != b"}" or not labels:
        raise SeriesError("labels are not well formed")
    return name.decode(), labels
