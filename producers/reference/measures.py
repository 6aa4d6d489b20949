"""The metrics that the reference application emits, by the names its users fixed."""

from typing import Final

from producers.metrics import Counter, Histogram

INFERENCE_BUCKETS_S: Final = (
    0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1,
)  # fmt: skip
SERIALIZATION_BUCKETS_MS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 25.0)
QUERY_BUCKETS_MS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0)

QUALIFICATIONS: Final = Counter(
    "jorge_seller_bot_qualifications_total", "Seller conversations, by how they were classified.", ("outcome",)
)
DECISIONS: Final = Counter(
    "intent_decoder_decisions_total",
    "Decoded messages whose intent is known: `correct` says whether the prediction equals it.",
    ("correct",),
)
UNLABELLED: Final = Counter("intent_decoder_unlabelled_total", "Decoded messages whose intent nobody knows.")
INFERENCE_S: Final = Histogram(
    "ml_scoring_inference_time_seconds", "Time of one scoring.", buckets=INFERENCE_BUCKETS_S, unit="seconds"
)
INFERENCE_MS: Final = Histogram(
    "ml_scoring_inference_time_ms",
    "Time of one scoring, in milliseconds.",
    buckets=tuple(round(bound * 1000, 6) for bound in INFERENCE_BUCKETS_S),
)
SERIALIZATION_MS: Final = Histogram(
    "cache_serialization_time_ms", "Time to write one listing as JSON.", buckets=SERIALIZATION_BUCKETS_MS
)
QUERY_MS: Final = Histogram(
    "database_query_time_ms", "Time of one look-up in PostgreSQL, connection included.", buckets=QUERY_BUCKETS_MS
)
UNAVAILABLE: Final = Counter("listing_unavailable_total", "Look-ups refused because PostgreSQL was away.")
REFUSED: Final = Counter("websocket_refused_total", "WebSockets refused before they were accepted.", ("reason",))
