-- $1 fewest changed rows: tables and partitions of which so many changed since their ANALYZE
WITH free AS MATERIALIZED (  -- what an ACCESS EXCLUSIVE lock hides is skipped, not waited for
    SELECT c.oid, c.reltuples FROM pg_class c
     WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
       AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock'
                          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
)
SELECT format('%I.%I', s.schemaname, s.relname) AS name,
       (SELECT format('%I.%I', n.nspname, r.relname) FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace
         WHERE r.oid = coalesce(pg_partition_root(s.relid), s.relid)) AS root,
       s.n_mod_since_analyze::float8 AS changed_rows,
       greatest(s.n_live_tup, f.reltuples, 1)::float8 AS live_rows,
       extract(epoch FROM clock_timestamp() - greatest(s.last_analyze, s.last_autoanalyze))::float8 AS analyze_age_s
  FROM pg_stat_user_tables s JOIN free f ON f.oid = s.relid
 WHERE s.n_mod_since_analyze >= $1::float8
 ORDER BY s.n_mod_since_analyze DESC
 LIMIT 500
