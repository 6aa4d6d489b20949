-- $1 snapshot, $2 its xmin: the series that commits touched which that snapshot did not see, one array a commit.
SELECT array_send(series_ids) AS ids
  FROM commits WHERE xid >= $2::text::xid8 AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
