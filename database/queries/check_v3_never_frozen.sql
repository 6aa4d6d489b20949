-- $1 fewest inserted rows: tables into which more was inserted since their VACUUM than autovacuum should let pass.
-- closed_s: seconds since the end of a partition's range, if it is a range of time that has ended.
WITH free AS MATERIALIZED (  -- what an ACCESS EXCLUSIVE lock hides is skipped, not waited for
    SELECT c.oid, c.reltuples, c.reloptions, pg_get_expr(c.relpartbound, c.oid) AS bound, c.relispartition FROM pg_class c
     WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
       AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock'
                          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
),
named AS (
    SELECT s.*, f.bound, f.relispartition,
           greatest(s.n_live_tup, f.reltuples, 1)::float8 AS live_rows,
           coalesce((SELECT option_value FROM pg_options_to_table(f.reloptions)
                  WHERE option_name = 'autovacuum_vacuum_insert_threshold'),
                current_setting('autovacuum_vacuum_insert_threshold'))::float8 AS base,
           coalesce((SELECT option_value FROM pg_options_to_table(f.reloptions)
                  WHERE option_name = 'autovacuum_vacuum_insert_scale_factor'),
                current_setting('autovacuum_vacuum_insert_scale_factor'))::float8 AS scale
      FROM pg_stat_user_tables s JOIN free f ON f.oid = s.relid
     WHERE s.n_ins_since_vacuum >= $1::float8
)
SELECT format('%I.%I', s.schemaname, s.relname) AS name,
       (SELECT format('%I.%I', n.nspname, r.relname) FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace
         WHERE r.oid = coalesce(pg_partition_root(s.relid), s.relid)) AS root,
       s.n_ins_since_vacuum::float8 AS inserted_rows,
       s.live_rows,
       greatest(s.base, 0) + s.scale * s.live_rows AS trigger_rows,
       extract(epoch FROM clock_timestamp() - greatest(s.last_vacuum, s.last_autovacuum))::float8 AS vacuum_age_s,
       (SELECT extract(epoch FROM clock_timestamp() - substring(s.bound FROM $$ TO \('([^']+)'\)$$)::timestamptz)::float8
          FROM pg_inherits i JOIN pg_partitioned_table p ON p.partrelid = i.inhparent
          JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
         WHERE i.inhrelid = s.relid AND p.partstrat = 'r' AND p.partnatts = 1
           AND a.atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)) AS closed_s
  FROM named s
 WHERE s.n_tup_upd + s.n_tup_del <= 0.1 * s.n_tup_ins  -- else dead rows bring VACUUM
   AND s.n_ins_since_vacuum > greatest(s.base, 0) + s.scale * s.live_rows
 ORDER BY s.n_ins_since_vacuum DESC
 LIMIT 500
