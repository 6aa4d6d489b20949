-- $1 series
SELECT key FROM series WHERE series_id = $1
