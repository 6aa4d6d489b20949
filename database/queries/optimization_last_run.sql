-- The newest run, also one that was skipped; what a person applied is no run.
SELECT started_at, finished_at, status, skipped_reason, statement_s, interval_s, connections
  FROM optimizer_runs WHERE status <> 'applied' ORDER BY started_at DESC LIMIT 1
