-- $1 rows at least: tables that an index could serve, partitions with their root; the columns that existing complete
-- indexes begin with (one array an index); writes that each index has to follow.
SELECT format('%I.%I', n.nspname, t.relname) AS name, n.nspname AS schema_name, t.relname AS bare_name,
       format('%I.%I', rn.nspname, r.relname) AS root, quote_ident(rn.nspname) AS root_schema, r.relname AS root_name,
       t.relispartition AS is_partition,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       coalesce((SELECT jsonb_agg(ARRAY(SELECT coalesce(a.attname::text, '') FROM unnest(i.indkey::int2[])
                                          WITH ORDINALITY AS u (attnum, place)
                                          LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = u.attnum
                                         WHERE u.place <= i.indnkeyatts ORDER BY u.place))
                   FROM pg_index i WHERE i.indrelid = t.oid AND i.indisvalid AND i.indpred IS NULL), '[]') AS indexed,
       s.n_tup_ins + s.n_tup_del + s.n_tup_upd - s.n_tup_hot_upd AS writes
  FROM pg_class t
  JOIN pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_class r ON r.oid = CASE WHEN t.relispartition THEN pg_partition_root(t.oid) ELSE t.oid END
  JOIN pg_namespace rn ON rn.oid = r.relnamespace
  JOIN pg_stat_user_tables s ON s.relid = t.oid
 WHERE t.relkind IN ('r', 'm') AND greatest(s.n_live_tup, t.reltuples) >= $1
   AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
