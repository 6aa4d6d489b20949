-- $1 metric names: their series.
SELECT m.name, m.kind, s.series_id, s.key FROM metrics m JOIN series s USING (metric_id) WHERE m.name = ANY ($1)
