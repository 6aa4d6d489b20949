-- Totals whose exact counts per bound do not add up to their n.
SELECT s.key, t.n, (SELECT sum(x) FROM unnest(t.le) AS x)::bigint AS in_buckets
  FROM totals t JOIN series s USING (series_id)
 WHERE t.le IS NOT NULL AND t.n <> (SELECT sum(x) FROM unnest(t.le) AS x) LIMIT 50
