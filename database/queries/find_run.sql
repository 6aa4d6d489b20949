-- $1 run id; `ready`: its schema was made (a crash may have come between the row and the schema)
SELECT schema_name, purged_at,
       EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = schema_name AND c.relname = 'parts') AS ready
  FROM load_runs WHERE run_id = $1
