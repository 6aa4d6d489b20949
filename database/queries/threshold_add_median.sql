-- $1 threshold, $2 median of an accepted run; those older than 60 days are dropped.
WITH old AS (DELETE FROM threshold_medians WHERE threshold_id = $1 AND at < now() - interval '60 days')
INSERT INTO threshold_medians VALUES ($1, now(), $2) ON CONFLICT DO NOTHING
