-- $1 table or index, quoted: what an action on it changes.
SELECT c.relkind::text AS kind, c.reltuples AS estimated_rows, s.n_dead_tup AS dead_rows,
       s.n_mod_since_analyze AS rows_changed_since_analyze, greatest(s.last_analyze, s.last_autoanalyze) AS analyzed_at,
       greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed_at, age(c.relfrozenxid) AS xid_age,
       pg_relation_size(c.oid) AS size_bytes, i.indisvalid AS is_valid
  FROM pg_class c
  LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
  LEFT JOIN pg_index i ON i.indexrelid = c.oid
 WHERE c.oid = to_regclass($1)
