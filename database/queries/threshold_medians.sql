-- $1 threshold: its medians of earlier runs, oldest first, with their age in days.
SELECT extract(epoch FROM now() - at)::float8 / 86400 AS age_days, median
  FROM threshold_medians WHERE threshold_id = $1 ORDER BY at
