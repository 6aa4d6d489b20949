-- $1 fewest rows, $2 fewest updated or deleted rows, $3 scale factor that is small enough: tables and partitions
-- beyond both whose VACUUM is triggered by a larger share, with no scale factor of their own
WITH free AS MATERIALIZED (  -- what an ACCESS EXCLUSIVE lock hides is skipped, not waited for
    SELECT c.oid, c.reloptions, c.reltuples FROM pg_class c
     WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
       AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock'
                          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
)
SELECT format('%I.%I', s.schemaname, s.relname) AS name,
       (SELECT format('%I.%I', n.nspname, r.relname) FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace
         WHERE r.oid = coalesce(pg_partition_root(s.relid), s.relid)) AS root,
       greatest(s.n_live_tup, f.reltuples)::float8 AS live_rows,
       (s.n_tup_upd + s.n_tup_del)::float8 AS changed_rows,
       current_setting('autovacuum_vacuum_scale_factor')::float8 AS scale_factor,
       current_setting('autovacuum_vacuum_threshold')::float8 AS threshold_rows,
       array_to_string(f.reloptions, ', ') AS options
  FROM pg_stat_user_tables s JOIN free f ON f.oid = s.relid
 WHERE greatest(s.n_live_tup, f.reltuples) > $1::float8
   AND s.n_tup_upd + s.n_tup_del >= $2::float8
   AND current_setting('autovacuum_vacuum_scale_factor')::float8 > $3::float8
   AND NOT EXISTS (SELECT FROM pg_options_to_table(f.reloptions)
                    WHERE option_name IN ('autovacuum_vacuum_scale_factor', 'autovacuum_enabled'))
 ORDER BY greatest(s.n_live_tup, f.reltuples) DESC
 LIMIT 500
