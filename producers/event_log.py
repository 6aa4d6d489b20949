"""Event log: what the library says in an application's own log, in whatever form that application formats its lines.

In: `log.warning("event_name", extra={...})`. Out: a record with the message `event_name field='value' …`, and the
event and the fields as its attributes, for formatters that show those.
Promise: the event is the first word of the message and the record's attribute `event`.
"""

import logging
from collections.abc import MutableMapping
from typing import Any


class EventLog(logging.LoggerAdapter[logging.Logger]):
    """A module's logger."""

    def __init__(self, module: str) -> None:
        super().__init__(logging.getLogger(module))

    def process(self, msg: str, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        """Write the fields behind the event: a formatter of text shows the message alone."""
        fields: dict[str, Any] = kwargs.get("extra") or {}
        text = " ".join([msg, *(f"{name}={value!r}" for name, value in fields.items())])
        return text, {**kwargs, "extra": {**fields, "event": msg}}
