-- $1 run id: the schema of a load-test run; no row before its first batch was read or after its purge.
SELECT schema_name FROM load_runs WHERE run_id = $1 AND purged_at IS NULL
