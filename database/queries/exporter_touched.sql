-- $1 snapshot, $2 its xmin: ids of the series that commits touched which that snapshot did not see.
SELECT string_agg(DISTINCT int4send(id), '') AS ids
  FROM commits, unnest(series_ids) AS id
 WHERE xid >= $2::text::xid8 AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
