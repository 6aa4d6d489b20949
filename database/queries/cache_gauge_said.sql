-- $1 a gauge of caches: the value of each producer, and when it was set.
SELECT s.key, g.value, g.set_ms FROM metrics m JOIN series s USING (metric_id) JOIN gauges g USING (series_id)
 WHERE m.name = $1
