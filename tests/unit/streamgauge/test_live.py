"""The few numbers that `up` shows are lines of the exposition."""

from streamgauge.live import committed, samples

EXPOSITION = """\
# HELP streamgauge_committed_events_total Events committed.
# TYPE streamgauge_committed_events_total counter
streamgauge_committed_events_total{service="api"} 40
streamgauge_committed_events_total{service="worker"} 2
# TYPE http_requests_total counter
http_requests_total{path="/a b",status="200"} 1
http_requests_total{path="/c",status="200"} 7
# TYPE took_seconds histogram
took_seconds_bucket{le="+Inf"} 8
took_seconds_count 8
# TYPE accuracy gauge
accuracy 0.875
"""


def test_committed_sums_all_services() -> None:
    assert committed(EXPOSITION) == 42
    assert committed("") == 0


def test_samples_are_the_largest_of_each_application_counter_and_gauge() -> None:
    assert samples(EXPOSITION) == ["accuracy 0.875", 'http_requests_total{path="/c",status="200"} 7']
