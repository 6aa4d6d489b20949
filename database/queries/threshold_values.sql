-- $1 threshold: what it is in each bucket.
SELECT bucket, warn, critical, method, is_pinned, extract(epoch FROM now() - set_at)::float8 / 86400 AS age_days
  FROM threshold_values WHERE threshold_id = $1
