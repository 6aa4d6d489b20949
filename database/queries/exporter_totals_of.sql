-- $1 series ids: their totals, as in exporter_totals.
SELECT layout_id, count(*)::int AS size,
       string_agg(int8send(series_id::bigint << 16 | shard) || float8send(sum)
                  || CASE WHEN layout_id = 0 THEN '' ELSE coalesce(array_send(le), int8send(n)) END, '') AS rows
  FROM totals WHERE series_id = ANY ($1) GROUP BY layout_id
