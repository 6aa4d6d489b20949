-- $1 run id
UPDATE load_runs SET purged_at = coalesce(purged_at, now()) WHERE run_id = $1 RETURNING schema_name
