-- Indexes that could be done without and how often this server used each, partitions under the index of the parent.
-- Left out: what enforces something (unique, primary, exclusion, constraints, replica identity), invalid indexes (I6),
-- and an index whose first column is the first of a foreign key (deletes in the parent use it, seldom and badly missed).
WITH indexes AS (
    SELECT i.indexrelid, i.indrelid, CASE WHEN c.relispartition THEN pg_partition_root(c.oid) ELSE c.oid END AS root
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'i' AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
       AND i.indisvalid AND NOT i.indisunique AND NOT i.indisprimary AND NOT i.indisexclusion AND NOT i.indisreplident
       AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid)
       AND NOT EXISTS (SELECT 1 FROM pg_constraint k
                        WHERE k.contype = 'f' AND k.conrelid = i.indrelid AND k.conkey[1] = i.indkey[0])
       AND NOT EXISTS (SELECT 1 FROM pg_locks l WHERE l.relation = i.indexrelid AND l.mode = 'AccessExclusiveLock')
)
SELECT format('%I.%I', n.nspname, r.relname) AS name, r.oid::bigint AS index_id,
       format('%I.%I', tn.nspname, t.relname) AS table_name, r.relkind = 'I' AS is_partitioned,
       pg_get_indexdef(r.oid) AS definition,
       sum(s.idx_scan)::bigint AS scans,
       max((to_jsonb(s) ->> 'last_idx_scan')::timestamptz) AS last_scan,  -- 16 and newer
       sum(pg_relation_size(x.indexrelid))::bigint AS size_bytes,
       sum(u.n_tup_ins + u.n_tup_del + u.n_tup_upd - u.n_tup_hot_upd)::bigint AS writes,
       (SELECT count(*) FROM pg_stat_replication w WHERE w.state <> 'backup' AND w.replay_lsn IS NOT NULL
           AND NOT EXISTS (SELECT FROM pg_replication_slots o WHERE o.active_pid = w.pid AND o.slot_type = 'logical')
       )::int AS standbys,
       (SELECT extract(epoch FROM clock_timestamp() - greatest(d.stats_reset, b.stats_reset))::float8
          FROM pg_stat_database d, pg_stat_bgwriter b WHERE d.datname = current_database()) AS stats_age_s
  FROM indexes x
  JOIN pg_class r ON r.oid = x.root JOIN pg_namespace n ON n.oid = r.relnamespace
  JOIN pg_index ri ON ri.indexrelid = r.oid
  JOIN pg_class t ON t.oid = ri.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
  JOIN pg_stat_all_indexes s ON s.indexrelid = x.indexrelid
  JOIN pg_stat_all_tables u ON u.relid = x.indrelid
 GROUP BY n.nspname, r.oid, r.relname, r.relkind, tn.nspname, t.relname
