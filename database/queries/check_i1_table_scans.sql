-- Scans of tables, partitions under their root. size_bytes NULL: locked exclusively, its size cannot be asked without
-- waiting; its counters can, and the next hour is compared with them.
SELECT s.relid::bigint AS table_id, format('%I.%I', n.nspname, c.relname) AS name, c.relname AS bare_name,
       coalesce(s.seq_scan, 0) AS seq_scans, coalesce(s.seq_tup_read, 0) AS seq_rows,
       coalesce(s.idx_scan, 0) AS index_scans,
       greatest(s.n_live_tup, t.reltuples::bigint, 0) AS live_rows,
       CASE WHEN NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = s.relid AND l.mode = 'AccessExclusiveLock'
                                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
            THEN pg_relation_size(s.relid) END AS size_bytes
  FROM pg_stat_user_tables s
  JOIN pg_class t ON t.oid = s.relid
  JOIN pg_class c ON c.oid = CASE WHEN t.relispartition THEN pg_partition_root(t.oid) ELSE t.oid END
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE t.relkind IN ('r', 'm')
