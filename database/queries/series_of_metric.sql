-- $1 metric name
SELECT s.series_id, s.key FROM series s JOIN metrics m USING (metric_id) WHERE m.name = $1
