-- $1 threshold, $2 bucket or null for all: the newest change of each bucket, with what was before it.
SELECT DISTINCT ON (bucket) bucket, old_warn, old_critical, reason, old_method
  FROM threshold_changes
 WHERE threshold_id = $1 AND ($2::int IS NULL OR bucket = $2)
 ORDER BY bucket, change_id DESC
