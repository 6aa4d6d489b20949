-- $1 fewest dead rows, $2 lowest share of dead rows: tables and partitions beyond both, with their root
WITH free AS MATERIALIZED (  -- what an ACCESS EXCLUSIVE lock hides is skipped, not waited for
    SELECT c.oid, c.reloptions FROM pg_class c
     WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
       AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock'
                          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
)
SELECT format('%I.%I', s.schemaname, s.relname) AS name,
       (SELECT format('%I.%I', n.nspname, r.relname) FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace
         WHERE r.oid = coalesce(pg_partition_root(s.relid), s.relid)) AS root,
       s.n_dead_tup::float8 AS dead_rows,
       s.n_live_tup::float8 AS live_rows,
       pg_table_size(s.relid)::float8 AS size_bytes,
       extract(epoch FROM clock_timestamp() - greatest(s.last_vacuum, s.last_autovacuum))::float8 AS vacuum_age_s,
       coalesce(o.scale_factor, current_setting('autovacuum_vacuum_scale_factor'))::float8 AS scale_factor,
       o.scale_factor AS own_scale_factor, o.is_off
  FROM pg_stat_user_tables s JOIN free f ON f.oid = s.relid
  CROSS JOIN LATERAL (
       SELECT max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_scale_factor') AS scale_factor,
              coalesce(bool_or(option_name = 'autovacuum_enabled' AND NOT option_value::boolean), false) AS is_off
         FROM pg_options_to_table(f.reloptions)) o
 WHERE s.n_dead_tup >= $1::float8 AND s.n_dead_tup >= $2::float8 * (s.n_live_tup + s.n_dead_tup)
 ORDER BY s.n_dead_tup DESC
 LIMIT 500
