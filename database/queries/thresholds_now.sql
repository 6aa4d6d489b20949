-- $1 bucket: every threshold with its values in it.
SELECT t.threshold_id, t.metric, t.route, t.side, t.source, t.frozen, t.calibrated_at, v.bucket, v.warn, v.critical,
       v.method, v.n, v.is_pinned, v.set_at
  FROM thresholds t JOIN threshold_values v ON v.threshold_id = t.threshold_id AND v.bucket = $1
 WHERE NOT t.is_retired ORDER BY t.metric, t.route, t.side
