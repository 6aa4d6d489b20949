-- Every total, one value a layout: its rows laid end to end, each of the same length. One aggregate of joined fields
-- takes half the time of one for each field. Layout 0 has no buckets, and nobody asks for its n.
SELECT layout_id, count(*)::int AS size,
       string_agg(int8send(series_id::bigint << 16 | shard) || float8send(sum)
                  || CASE WHEN layout_id = 0 THEN '' ELSE coalesce(array_send(le), int8send(n)) END, '') AS rows
  FROM totals GROUP BY layout_id
