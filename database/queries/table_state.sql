-- $1 table or index, quoted: what an action on it changes.
SELECT c.relkind::text AS kind, c.reltuples AS estimated_rows, s.n_dead_tup AS dead_rows,
       s.n_mod_since_analyze AS rows_changed_since_analyze, greatest(s.last_analyze, s.last_autoanalyze) AS analyzed_at,
       greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed_at, CASE WHEN c.relkind IN ('r', 'm') THEN age(c.relfrozenxid) END AS xid_age,
       CASE WHEN c.relkind <> 'p' THEN pg_relation_size(c.oid) END AS size_bytes,
       CASE WHEN c.relkind = 'p' THEN (SELECT count(*) FROM pg_inherits WHERE inhparent = c.oid) END AS partitions, i.indisvalid AS is_valid
  FROM pg_class c
  LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
  LEFT JOIN pg_index i ON i.indexrelid = c.oid
 WHERE c.oid = to_regclass($1)
