-- a table called heartbeats with a time that the current role may read: the primary writes it, a standby's is as old
-- as its lag
SELECT format('%I.%I', n.nspname, c.relname) AS table_name, quote_ident(a.attname) AS column_name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relname = 'heartbeats' AND c.relkind = 'r' AND a.atttypid = 'timestamptz'::regtype
   AND has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT')
 ORDER BY n.nspname = 'streamgauge' DESC, n.nspname, a.attnum
 LIMIT 1
