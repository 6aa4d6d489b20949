-- $1 metrics, $2 routes, $3 sides, $4 sources: what is calibrated now; returns each with its number.
INSERT INTO thresholds AS t (metric, route, side, source)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[])
ON CONFLICT (metric, route, side) DO UPDATE SET source = excluded.source, is_retired = false
RETURNING threshold_id, metric, route, side
