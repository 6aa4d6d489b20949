-- $1 run, $2 status, $3 statement seconds, $4 most connections: end a run.
UPDATE optimizer_runs SET status = $2, finished_at = clock_timestamp(), statement_s = $3, connections = $4
 WHERE run_id = $1
