-- The newest answer of every check.
SELECT target, check_id, title, at, status, duration_s, findings, error_kind, detail
  FROM check_results ORDER BY target <> 'monitoring', target, check_id
