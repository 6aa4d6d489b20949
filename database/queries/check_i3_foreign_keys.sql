-- $1 rows of the child at least: foreign keys whose columns no index of the child begins with, whose parent has seen
-- deletes or updates. Sums over partitions; constraints that partitions inherit are left out.
WITH keys AS (
    SELECT k.oid, k.conname, k.conrelid, k.confrelid, k.conkey
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE k.contype = 'f' AND k.conparentid = 0 AND n.nspname NOT IN ('pg_catalog', 'information_schema')
       AND NOT EXISTS (
           SELECT 1 FROM pg_index i
            WHERE i.indrelid = k.conrelid AND i.indisvalid
              AND (i.indpred IS NULL OR (array_length(k.conkey, 1) = 1 AND pg_get_expr(i.indpred, i.indrelid) =
                   format('(%I IS NOT NULL)', (SELECT attname FROM pg_attribute
                                               WHERE attrelid = k.conrelid AND attnum = k.conkey[1]))))
              AND i.indnkeyatts >= array_length(k.conkey, 1)
              AND (i.indkey::int2[])[0:array_length(k.conkey, 1) - 1] @> k.conkey)
), sizes AS (
    SELECT p.root, sum(s.n_live_tup) AS live_rows, sum(s.n_tup_del) AS deletes, sum(s.n_tup_upd) AS updates
      FROM (SELECT oid, CASE WHEN relispartition THEN pg_partition_root(oid) ELSE oid END AS root
              FROM pg_class WHERE relkind = 'r') p
      JOIN pg_stat_user_tables s ON s.relid = p.oid
     GROUP BY p.root
)
SELECT format('%I.%I', n.nspname, c.relname) AS name, quote_ident(n.nspname) AS schema_name, c.relname AS bare_name,
       k.conname AS constraint_name, format('%I.%I', pn.nspname, p.relname) AS parent, c.relkind = 'p' AS is_partitioned,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (attnum, place)
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.place) AS columns,
       child.live_rows::bigint AS live_rows, parent.deletes::bigint AS parent_deletes,
       parent.updates::bigint AS parent_updates
  FROM keys k
  JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
  JOIN sizes child ON child.root = CASE WHEN c.relispartition THEN pg_partition_root(c.oid) ELSE c.oid END
  JOIN sizes parent ON parent.root = p.oid
 WHERE child.live_rows >= $1 AND parent.deletes + parent.updates > 0
 ORDER BY child.live_rows DESC, 1
