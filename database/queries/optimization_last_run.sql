-- The newest run, also one that was skipped.
SELECT started_at, finished_at, status, skipped_reason, statement_s, interval_s, connections
  FROM optimizer_runs ORDER BY started_at DESC LIMIT 1
