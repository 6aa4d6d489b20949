-- Load-test runs whose schema exists.
SELECT r.run_id, r.schema_name, r.created_at FROM load_runs r
 WHERE purged_at IS NULL AND EXISTS (SELECT FROM pg_namespace WHERE nspname = r.schema_name) ORDER BY r.created_at
