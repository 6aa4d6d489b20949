"""Logs are one line an event, with its fields."""

import json
import logging
import sys

from streamgauge.logs import JsonFormatter, TextFormatter


def record(**extra: object) -> logging.LogRecord:
    made = logging.LogRecord("aggregator", logging.WARNING, __file__, 1, "shard_lost", None, None)
    vars(made).update(extra)
    return made


def test_json_line_holds_the_event_and_its_fields() -> None:
    line = json.loads(JsonFormatter().format(record(shard=3, held={1})))
    assert (line["event"], line["level"], line["shard"], line["held"]) == ("shard_lost", "WARNING", 3, "{1}")
    assert line["at"].endswith("+00:00")


def test_text_line_is_readable_and_keeps_the_traceback() -> None:
    made = record(shard=3)
    try:
        raise ValueError("why")
    except ValueError:
        made.exc_info = sys.exc_info()
    text = TextFormatter().format(made)
    assert "WARNING shard_lost shard=3\n" in text
    assert text.endswith("ValueError: why")
