-- constraints that old rows were never checked against; what a partition inherits is its parent's, and what is not
-- enforced (PostgreSQL 18) is meant so
SELECT quote_ident(k.conname) AS name, format('%I.%I', n.nspname, t.relname) AS table_name,
       CASE k.contype WHEN 'f' THEN 'foreign key' WHEN 'c' THEN 'check' ELSE 'not null' END AS kind,
       pg_get_constraintdef(k.oid) AS definition, 8192.0 * t.relpages AS size_bytes
  FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
 WHERE NOT k.convalidated AND k.conparentid = 0 AND k.coninhcount = 0
   AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
 ORDER BY 2, 1
 LIMIT 200
