-- $1 threshold or null for all, $2 at most so many: changes, newest first.
SELECT c.change_id, c.threshold_id, t.metric, t.route, t.side, c.bucket, c.at, c.old_warn, c.old_critical, c.new_warn,
       c.new_critical, c.method, c.n, c.dropped, c.mad, c.reason, c.actor
  FROM threshold_changes c JOIN thresholds t USING (threshold_id)
 WHERE $1::int IS NULL OR threshold_id = $1
 ORDER BY change_id DESC LIMIT $2
