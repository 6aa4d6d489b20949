-- Invalid indexes that nobody is building now, with what decides how to be rid of them.
-- A valid twin has the same columns, classes, options, expressions and predicate on the same table.
SELECT format('%I.%I', n.nspname, c.relname) AS name,
       format('%I.%I', n.nspname, t.relname) AS table_name,
       c.relname ~ '_cc(new|old)[0-9]*$' AS is_leftover,
       EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid) AS backs_constraint,
       (SELECT format('%I.%I', n.nspname, other.relname)
          FROM pg_index v JOIN pg_class other ON other.oid = v.indexrelid
         WHERE v.indrelid = i.indrelid AND v.indexrelid <> i.indexrelid AND v.indisvalid
           AND other.relam = c.relam AND v.indkey = i.indkey AND v.indclass = i.indclass
           AND v.indoption = i.indoption AND v.indcollation = i.indcollation
           AND (v.indisunique OR NOT i.indisunique)
           AND pg_get_expr(v.indexprs, v.indrelid) IS NOT DISTINCT FROM pg_get_expr(i.indexprs, i.indrelid)
           AND pg_get_expr(v.indpred, v.indrelid) IS NOT DISTINCT FROM pg_get_expr(i.indpred, i.indrelid)
         ORDER BY other.relname LIMIT 1) AS valid_twin,
       pg_relation_size(i.indexrelid) AS size_bytes,
       pg_get_indexdef(i.indexrelid) AS definition
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
  JOIN pg_class t ON t.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT i.indisvalid
   AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
   AND NOT EXISTS (SELECT 1 FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
   AND NOT EXISTS (SELECT 1 FROM pg_locks l WHERE l.relation = i.indexrelid AND l.mode = 'AccessExclusiveLock')
 ORDER BY 1
