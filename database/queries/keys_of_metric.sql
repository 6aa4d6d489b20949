-- $1 metric name, or null for all
SELECT s.series_id, s.key FROM series s JOIN metrics m USING (metric_id) WHERE $1::text IS NULL OR m.name = $1
