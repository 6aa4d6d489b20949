-- $1 run id
SELECT schema_name, purged_at FROM load_runs WHERE run_id = $1
