"""Metrics as an application declares them: names, labels, children, timers."""

import asyncio
import threading

import pytest

from contract.metric import Kind
from contract.series import SeriesError
from producers import Client, Counter, Gauge, Histogram, Info, Settings, SettingsError


@pytest.fixture
def client() -> Client:
    """A client that sends nowhere and whose threads do not run."""
    client = Client(Settings(disabled=True, max_series_per_metric=3))
    client.ensure_running = lambda: None  # type: ignore[method-assign]
    return client


def test_counter_name_gets_total_once(client: Client) -> None:
    """As prometheus_client does, so that moving over renames nothing."""
    assert Counter("a", registry=client).definition.name == "a_total"
    assert Counter("b_total", registry=client).definition.name == "b_total"
    assert Info("c", "Facts.", {"version": "1"}, registry=client).definition.name == "c_info"


def test_same_labels_are_one_child_however_they_are_given(client: Client) -> None:
    """Positions, names and values that print alike lead to one series."""
    hits = Counter("a", labelnames=["x", "y"], registry=client)
    assert hits.labels("1", "2") is hits.labels(y=2, x=1) is hits.labels(1, "2")
    assert hits.labels("1", "2").key == b'a_total{x="1",y="2"}'


def test_equal_values_that_print_differently_are_different_series(client: Client) -> None:
    """1 == True in Python, but not as a label."""
    hits = Counter("a", labelnames=["x"], registry=client)
    assert hits.labels(1).key != hits.labels(True).key


@pytest.mark.parametrize(("values", "named"), [((), {}), (("1", "2"), {}), ((), {"z": 1})])
def test_wrong_label_names_are_a_programming_error(
    client: Client, values: tuple[str, ...], named: dict[str, int]
) -> None:
    """ValueError where the code is wrong, as opposed to the data."""
    hits = Counter("a", labelnames=["x"], registry=client)
    with pytest.raises(ValueError, match="a_total has"):
        hits.labels(*values, **named)


def test_redeclaring_joins_and_contradicting_raises(client: Client) -> None:
    """Two modules may declare one metric; they may not disagree."""
    first = Counter("a", "Help.", ["x"], registry=client)
    again = Counter("a", "Help.", ["x"], registry=client)
    assert again.labels("1") is first.labels("1")
    with pytest.raises(ValueError, match="a_total is declared already"):
        Counter("a", "Help.", ["y"], registry=client)
    Gauge("g", registry=client)
    with pytest.raises(ValueError, match="g is declared already"):
        Histogram("g", registry=client)


@pytest.mark.parametrize("name", ["", "1a", "a-b", "ä"])
def test_bad_metric_names_are_refused(client: Client, name: str) -> None:
    """At declaration, where a developer sees it."""
    with pytest.raises(SeriesError, match="metric name"):
        Gauge(name, registry=client)


def test_a_bad_name_is_told_as_it_was_written(client: Client) -> None:
    """Not with the suffix that the library adds."""
    with pytest.raises(SeriesError, match="'a-total'"):
        Counter("a-total", registry=client)
    with pytest.raises(SeriesError, match="'a-b'"):
        Info("a-b", "Facts.", {"version": "1"}, registry=client)


def test_emitting_without_labels_says_which_are_needed(client: Client) -> None:
    """The first mistake of who moves over; a name that no child has is an ordinary AttributeError."""
    hits = Counter("a", "x", ["k", "l"], registry=client)
    with pytest.raises(AttributeError, match=r"^a_total has labels k, l: call labels\(\) first$"):
        hits.inc()
    for metric, method in ((Gauge("g", "x", ["k"], registry=client), "set"), (hits, "inc")):
        assert not hasattr(metric, method)
    with pytest.raises(AttributeError, match=r"^h has labels k"):
        Histogram("h", "x", ["k"], registry=client).time()
    with pytest.raises(AttributeError, match="'Counter' object has no attribute 'increment'"):
        hits.increment()  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="'Counter' object has no attribute 'set'"):
        Counter("b", registry=client).set(1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("mode", "hint"),
    [
        ("livesum", '; write merge="sum", live=True'),
        ("livemostrecent", '; write merge="last", live=True'),
        ("mostrecent", '; write merge="last"'),
        ("average", ""),
    ],
)
def test_an_unknown_merge_names_those_there_are(client: Client, mode: str, hint: str) -> None:
    """prometheus_client's modes with what they are called here."""
    with pytest.raises(ValueError, match=f"^merge of g is '{mode}': sum, min, max, mean, last, all are allowed{hint}$"):
        Gauge("g", registry=client, merge=mode)


@pytest.mark.parametrize("label", ["le", "__x", "job", "a-b"])
def test_bad_label_names_are_refused(client: Client, label: str) -> None:
    """Reserved names would be lost or misread by Prometheus."""
    with pytest.raises(SeriesError, match="label name"):
        Gauge("a", labelnames=[label], registry=client)


def test_surplus_series_share_the_overflow_series(client: Client) -> None:
    """The guard keeps totals right: beyond it counters go to one series."""
    hits = Counter("a", labelnames=["x"], registry=client)
    keys = {hits.labels(i).key for i in range(10)}
    assert len(keys) == 4
    assert b'a_total{overflow="true"}' in keys


def test_surplus_gauges_are_dropped_with_a_reason(client: Client) -> None:
    """A sum of unrelated gauges would be no measure."""
    level = Gauge("a", labelnames=["x"], registry=client)
    children = [level.labels(i) for i in range(5)]
    assert [child.drop for child in children] == [None, None, None, "series_limit", "series_limit"]


def test_timer_measures_blocks_functions_and_coroutines(client: Client) -> None:
    """One sample per call, exceptions included; a decorated function keeps its result and name."""
    latency = Histogram("a_seconds", labelnames=["x"], registry=client).labels("1")

    @latency.time()
    def double(n: int) -> int:
        return 2 * n

    @latency.time()
    async def triple(n: int) -> int:
        await asyncio.sleep(0)
        return 3 * n

    with latency.time():
        pass
    with pytest.raises(KeyError), latency.time():
        raise KeyError
    assert double(2) == 4
    assert asyncio.run(triple(2)) == 6
    assert double.__name__ == "double"
    assert len(latency.values) == 4
    assert all(value >= 0 for value in latency.values)


def test_histogram_bounds_drop_infinity_and_must_ascend(client: Client) -> None:
    """+Inf is implied; bounds that do not ascend are refused by name."""
    samples = Histogram("a", buckets=(1, 2, float("inf")), registry=client)
    assert samples.definition.bounds == (1.0, 2.0)
    assert samples.definition.kind is Kind.HISTOGRAM
    with pytest.raises(SeriesError, match="bounds of b"):
        Histogram("b", buckets=(2, 1), registry=client)


def test_fork_renews_the_lock_of_joined_metrics_too(client: Client) -> None:
    """A thread of the parent may hold it at the fork; a child that waited for it would hang in `labels()`."""
    first = Counter("a", labelnames=["x"], registry=client)
    joined = Counter("a", labelnames=["x"], registry=client)
    first._lock.acquire()  # pyright: ignore[reportPrivateUsage]
    client.after_fork()
    made = threading.Thread(target=lambda: joined.labels("1"), daemon=True)
    made.start()
    made.join(5)
    assert not made.is_alive()


def test_labels_do_not_raise_when_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process at its thread limit goes on serving."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client = Client(Settings())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    Counter("a", labelnames=["x"], registry=client).labels("1").inc()
    assert len(client.children) == 1


def test_start_names_a_bad_redis_url() -> None:
    """At start, to the caller: later it would only end a thread."""
    with pytest.raises(SettingsError, match="REDIS_URL"):
        Client().start(Settings(redis_url="nonsense://x"))
