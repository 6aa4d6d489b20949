"""Structured logs of the services: one line an event, its name first, its fields after.

In: stdlib logging calls `log.info("event_name", extra={...})`; of the producer library's, whose message says the fields
as well, the record's `event`. Out: JSON lines on standard error, or `key=value` text when a person watches.
Promise: a field that cannot be serialised never breaks a log call.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

_STANDARD: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message", "event"}


def configure(level: str = "INFO") -> None:
    """Send every log of this process to standard error, once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as `{"at", "level", "event", "logger", ...fields}`."""
        return json.dumps({**_head(record), **_fields(record), **_trace(self, record)}, default=repr)


class TextFormatter(logging.Formatter):
    """The same for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as `at LEVEL event key=value …`, with the traceback on the lines below."""
        head = _head(record)
        fields = " ".join(f"{name}={value!r}" for name, value in _fields(record).items())
        line = f"{head['at']} {head['level']:<7} {head['event']} {fields}".rstrip()
        trace = _trace(self, record)
        return f"{line}\n{trace['traceback']}" if trace else line


def _head(record: logging.LogRecord) -> dict[str, Any]:
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    event = getattr(record, "event", None) or record.getMessage()
    return {"at": at, "level": record.levelname, "event": event, "logger": record.name}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, str]:
    return {"traceback": formatter.formatException(record.exc_info)} if record.exc_info else {}
