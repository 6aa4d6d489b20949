-- $1 run id
INSERT INTO load_runs (run_id, schema_name)
VALUES ($1, current_schema() || '_run_' || (SELECT count(*) + 1 FROM load_runs) || '_' || left(md5($1), 6))
ON CONFLICT (run_id) DO UPDATE SET run_id = excluded.run_id
RETURNING schema_name
