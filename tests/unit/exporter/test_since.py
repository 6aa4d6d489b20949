"""Since-when of components, through changes and restarts."""

from datetime import UTC, datetime, timedelta

from exporter.since import Since, State

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LATER, EARLIER = NOW + timedelta(minutes=1), NOW - timedelta(days=1)


def test_a_status_keeps_its_time_until_it_changes() -> None:
    since = Since()
    assert since.note({"redis": "ok"}, NOW) == {"redis": NOW}
    assert since.note({"redis": "ok"}, LATER) == {"redis": NOW}
    assert since.note({"redis": "down"}, LATER) == {"redis": LATER}


def test_what_was_written_down_is_older_knowledge_of_the_same() -> None:
    since = Since()
    since.load({"redis": State("ok", EARLIER), "database": State("down", EARLIER)})
    assert since.note({"redis": "ok", "database": "ok"}, NOW) == {"redis": EARLIER, "database": NOW}


def test_a_change_seen_while_nothing_could_be_read_keeps_its_time() -> None:
    since = Since()
    since.note({"redis": "down", "streams": "ok"}, NOW)
    since.load({"redis": State("ok", EARLIER), "streams": State("ok", EARLIER)})
    assert since.note({"redis": "down", "streams": "ok"}, LATER) == {"redis": NOW, "streams": EARLIER}
    assert since.unwritten() == [("redis", State("down", NOW))]


def test_a_change_during_the_writing_is_written_again() -> None:
    since = Since()
    since.note({"redis": "ok"}, NOW)
    changes = since.unwritten()
    since.note({"redis": "down"}, LATER)
    since.wrote(changes)
    assert since.unwritten() == [("redis", State("down", LATER))]
    since.wrote(since.unwritten())
    assert not since.unwritten()
