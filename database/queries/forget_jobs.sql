-- Jobs that no aggregator has had in its schedule for an hour.
DELETE FROM jobs WHERE seen_at < clock_timestamp() - interval '1 hour'
