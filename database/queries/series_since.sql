-- $1 metric, $2 time: its series with data since then, from when to when.
SELECT s.series_id, s.key, extract(epoch FROM s.created_at)::float8 AS created_s,
       extract(epoch FROM s.active_at)::float8 AS active_s
  FROM metrics m JOIN series s USING (metric_id)
 WHERE m.name = $1 AND s.active_at >= $2
