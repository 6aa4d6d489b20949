-- $1 metric_id, $2 bounds
INSERT INTO layouts AS l (metric_id, bounds) VALUES ($1, $2)
ON CONFLICT (metric_id, bounds) DO UPDATE SET retired_at = NULL
RETURNING layout_id
