-- constraints that old rows were never checked against; what a partition inherits is its parent's, and what is not
-- enforced (PostgreSQL 18) is meant so
WITH free AS MATERIALIZED (  -- what an ACCESS EXCLUSIVE lock hides is skipped, not waited for
    SELECT k.oid, k.conname, k.contype, t.relname, t.relpages, n.nspname
      FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
     WHERE NOT k.convalidated AND k.conparentid = 0 AND k.coninhcount = 0
       AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
       AND n.nspname NOT IN ('pg_catalog', 'information_schema')
       AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation IN (k.conrelid, k.confrelid)
                          AND l.mode = 'AccessExclusiveLock'
                          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
)
SELECT quote_ident(conname) AS name, format('%I.%I', nspname, relname) AS table_name,
       CASE contype WHEN 'f' THEN 'foreign key' WHEN 'c' THEN 'check' ELSE 'not null' END AS kind,
       pg_get_constraintdef(oid) AS definition, 8192.0 * relpages AS size_bytes
  FROM free
 ORDER BY 2, 1
 LIMIT 200
