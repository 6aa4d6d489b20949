-- Jobs that no aggregator has had in its schedule for a day.
DELETE FROM jobs WHERE seen_at < clock_timestamp() - interval '1 day'
