-- Seconds since the newest heartbeat of any aggregator; NULL when there was none.
SELECT extract(epoch FROM clock_timestamp() - max(seen_at))::float8 FROM aggregators
