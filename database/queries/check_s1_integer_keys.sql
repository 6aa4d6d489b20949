-- $1 lowest share: columns of int2 or int4 in a key, without a sequence of their own, by the largest value that ANALYZE
-- saw of them; and those whose statistics are hidden from the current role (largest NULL)
SELECT format('%I.%I', n.nspname, t.relname) AS table_name, quote_ident(a.attname) AS column_name,
       format_type(a.atttypid, NULL) AS column_type, seen.largest, limits.type_max
  FROM pg_attribute a
  JOIN pg_class t ON t.oid = a.attrelid AND t.relkind IN ('r', 'p') AND NOT t.relispartition
  JOIN pg_namespace n ON n.oid = t.relnamespace AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  CROSS JOIN LATERAL (SELECT CASE a.atttypid WHEN 'int2'::regtype THEN 32767 ELSE 2147483647 END::float8 AS type_max) limits
  CROSS JOIN LATERAL (
      SELECT max(v::float8) AS largest
        FROM pg_stats s, unnest(s.histogram_bounds::text::text[] || s.most_common_vals::text::text[]) AS v
       WHERE s.schemaname = n.nspname AND s.tablename = t.relname AND s.attname = a.attname
  ) seen
 WHERE a.atttypid IN ('int2'::regtype, 'int4'::regtype) AND a.attnum > 0 AND NOT a.attisdropped
   AND EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = t.oid AND k.contype IN ('p', 'u', 'f')
                  AND a.attnum = ANY (k.conkey))
   AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_class q ON q.oid = d.objid AND q.relkind = 'S'
                    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                      AND d.refobjid = t.oid AND d.refobjsubid = a.attnum)
   AND (seen.largest >= $1::float8 * limits.type_max
        OR NOT has_column_privilege(t.oid, a.attnum, 'SELECT') OR row_security_active(t.oid))
