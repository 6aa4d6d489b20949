-- partitions by range of one column of time, oldest first in each table; bounds in Unix seconds, read from the
-- catalogue (NULL: unbounded), never from names
WITH free AS MATERIALIZED (  -- what an ACCESS EXCLUSIVE lock hides is skipped, not waited for
    SELECT c.oid, c.relname, c.relnamespace, c.reltuples, i.inhparent, c.relpartbound
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition AND c.relkind = 'r'
     WHERE NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation IN (c.oid, i.inhparent) AND l.mode = 'AccessExclusiveLock'
                          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
),
bounds AS (
    SELECT f.*, pn.nspname AS parent_schema, p.relname AS parent_name, a.attname, pg_get_expr(f.relpartbound, f.oid) AS bound
      FROM free f
      JOIN pg_partitioned_table k ON k.partrelid = f.inhparent AND k.partstrat = 'r' AND k.partnatts = 1
      JOIN pg_attribute a ON a.attrelid = k.partrelid AND a.attnum = k.partattrs[0]
                         AND a.atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
      JOIN pg_class p ON p.oid = k.partrelid
      JOIN pg_namespace pn ON pn.oid = p.relnamespace
)
SELECT format('%I.%I', b.parent_schema, b.parent_name) AS parent, b.attname AS key,
       format('%I.%I', n.nspname, b.relname) AS name,
       extract(epoch FROM substring(b.bound FROM $$FROM \('([^']+)'\)$$)::timestamptz)::float8 AS start_s,
       extract(epoch FROM substring(b.bound FROM $$ TO \('([^']+)'\)$$)::timestamptz)::float8 AS end_s,
       b.bound = 'DEFAULT' AS is_default,
       b.reltuples::float8 AS live_rows, pg_table_size(b.oid)::float8 AS size_bytes
  FROM bounds b JOIN pg_namespace n ON n.oid = b.relnamespace
 WHERE b.parent_schema !~ '^(pg_|information_schema$)'
 ORDER BY parent, end_s NULLS LAST
 LIMIT 20000
