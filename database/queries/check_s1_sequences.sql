-- sequences that count up and do not cycle: how far each is, and the column that it fills (with the largest value of
-- that column's type). last_value NULL: never used, or the current role may not read it (is_readable).
WITH free AS MATERIALIZED (  -- a sequence that ALTER SEQUENCE holds is skipped: its value would be waited for
    SELECT q.seqrelid, q.seqmax, format('%I.%I', n.nspname, c.relname) AS name,
           has_sequence_privilege(q.seqrelid, 'SELECT, USAGE') AS is_readable
      FROM pg_sequence q
      JOIN pg_class c ON c.oid = q.seqrelid AND c.relpersistence <> 't'
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE q.seqincrement > 0 AND NOT q.seqcycle
       AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid
                          AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
                          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
)
SELECT s.name, CASE WHEN s.is_readable THEN pg_sequence_last_value(s.seqrelid) END::float8 AS last_value,
       s.seqmax::float8 AS max_value, s.is_readable,
       CASE WHEN t.oid IS NOT NULL THEN format('%I.%I', tn.nspname, t.relname) END AS table_name,
       quote_ident(a.attname) AS column_name, format_type(a.atttypid, NULL) AS column_type,
       CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 END::float8 AS type_max
  FROM free s
  LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.deptype IN ('a', 'i')
                       AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
  LEFT JOIN pg_class t ON t.oid = d.refobjid
  LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
  LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
