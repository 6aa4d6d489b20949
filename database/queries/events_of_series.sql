-- $1 series
SELECT coalesce(sum(n), 0)::bigint FROM totals WHERE series_id = ANY ($1::int[])
