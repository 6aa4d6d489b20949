-- sequences that count up and do not cycle: how far each is, and the column that it fills (with the largest value of
-- that column's type). last_value NULL: never used, or the current role may not read it (is_readable).
SELECT format('%I.%I', s.schemaname, s.sequencename) AS name,
       s.last_value::float8, s.max_value::float8,
       has_sequence_privilege(c.oid, 'SELECT, USAGE') AS is_readable,
       CASE WHEN t.oid IS NOT NULL THEN format('%I.%I', tn.nspname, t.relname) END AS table_name, quote_ident(a.attname) AS column_name,
       format_type(a.atttypid, NULL) AS column_type,
       CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 END::float8 AS type_max
  FROM pg_sequences s
  JOIN pg_namespace n ON n.nspname = s.schemaname
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.sequencename AND c.relkind = 'S'
  LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
                       AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
  LEFT JOIN pg_class t ON t.oid = d.refobjid
  LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
  LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
 WHERE s.increment_by > 0 AND NOT s.cycle
