-- $1 run id, $2 at most so many runs; nothing is returned where there are as many
INSERT INTO load_runs (run_id, schema_name)
SELECT $1, current_schema() || '_run_' || (SELECT count(*) + 1 FROM load_runs) || '_' || left(md5($1), 6)
 WHERE (SELECT count(*) FROM load_runs WHERE purged_at IS NULL) < $2
    OR EXISTS (SELECT FROM load_runs WHERE run_id = $1)
ON CONFLICT (run_id) DO UPDATE SET run_id = excluded.run_id
RETURNING schema_name
