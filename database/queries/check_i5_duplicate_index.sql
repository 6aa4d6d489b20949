-- Pairs of indexes of one table where the first does all that the second does. Same method, predicate, expressions;
-- columns, classes, collations and options equal over the second's keys; the second includes no columns (or both are
-- alike to the last) and enforces nothing. A prefix counts for B-trees only: other methods do not sort.
WITH indexes AS (
    SELECT i.indexrelid AS id, i.indrelid, c.relam, c.relname, c.relkind, n.nspname, i.indnkeyatts AS keys,
           i.indnatts AS columns, i.indkey::int2[] AS key_columns, i.indclass::oid[] AS classes,
           i.indcollation::oid[] AS collations, i.indoption::int2[] AS options,
           coalesce(pg_get_expr(i.indexprs, i.indrelid), '') AS expressions,
           coalesce(pg_get_expr(i.indpred, i.indrelid), '') AS predicate,
           coalesce(c.reloptions, '{}') AS storage, i.indisunique AS is_unique,
           i.indisunique OR i.indisprimary OR i.indisexclusion OR i.indisreplident OR i.indisclustered
               OR EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid) AS is_needed
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE i.indisvalid AND i.indislive AND NOT c.relispartition
       AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
       AND NOT EXISTS (SELECT 1 FROM pg_locks l WHERE l.relation = i.indexrelid AND l.mode = 'AccessExclusiveLock')
)
SELECT DISTINCT ON (b.id) format('%I.%I', b.nspname, b.relname) AS name,
       format('%I.%I', a.nspname, a.relname) AS covered_by,
       format('%I.%I', tn.nspname, t.relname) AS table_name, b.relkind = 'I' AS is_partitioned,
       a.key_columns = b.key_columns AND a.keys = b.keys AS is_exact, pg_get_indexdef(b.id) AS definition,
       pg_get_indexdef(a.id) AS covered_by_definition,
       CASE WHEN b.relkind = 'I' THEN (SELECT coalesce(sum(pg_relation_size(p.relid)), 0) FROM pg_partition_tree(b.id) p)
            ELSE pg_relation_size(b.id) END::bigint AS size_bytes
  FROM indexes a
  JOIN indexes b ON b.indrelid = a.indrelid AND b.id <> a.id AND b.relam = a.relam
   AND b.expressions = a.expressions AND b.predicate = a.predicate
  JOIN pg_am m ON m.oid = a.relam
  JOIN pg_class t ON t.oid = a.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
 WHERE NOT b.is_needed AND b.keys <= a.keys
   AND a.key_columns[0:b.keys - 1] = b.key_columns[0:b.keys - 1]
   AND a.classes[0:b.keys - 1] = b.classes[0:b.keys - 1]
   AND a.collations[0:b.keys - 1] = b.collations[0:b.keys - 1]
   AND a.options[0:b.keys - 1] = b.options[0:b.keys - 1]
   AND (b.columns = b.keys OR a.key_columns = b.key_columns)
   AND (m.amname = 'btree' OR (a.key_columns = b.key_columns AND a.storage = b.storage))
   -- Of two that are alike the older stays; of a longer and a shorter the longer.
   AND (a.is_needed OR a.keys > b.keys OR a.columns > b.columns OR a.id < b.id)
 ORDER BY b.id, a.keys DESC, a.id
