-- $1 fewest dead rows: tables and partitions with as many, and when VACUUM last came
WITH free AS MATERIALIZED (  -- what an ACCESS EXCLUSIVE lock hides is skipped, not waited for
    SELECT c.oid FROM pg_class c
     WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
       AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock'
                          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
)
SELECT format('%I.%I', s.schemaname, s.relname) AS name,
       (SELECT format('%I.%I', n.nspname, r.relname) FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace
         WHERE r.oid = coalesce(pg_partition_root(s.relid), s.relid)) AS root,
       s.n_dead_tup::float8 AS dead_rows,
       s.n_live_tup::float8 AS live_rows,
       extract(epoch FROM clock_timestamp() - greatest(s.last_vacuum, s.last_autovacuum))::float8 AS vacuum_age_s
  FROM pg_stat_user_tables s JOIN free f ON f.oid = s.relid
 WHERE s.n_dead_tup >= $1::float8
 ORDER BY s.n_dead_tup DESC
 LIMIT 500
