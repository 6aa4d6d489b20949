-- $1 prefix of the metric name: every total, one row per series, layout and shard.
SELECT s.key, t.n, t.sum, t.le FROM totals t JOIN series s USING (series_id) JOIN metrics m USING (metric_id)
 WHERE starts_with(m.name, $1)
