-- default partitions, whether the current role may look into them, and the column that their table is divided by (NULL:
-- not by ranges of one column)
SELECT format('%I.%I', n.nspname, c.relname) AS name, format('%I.%I', pn.nspname, p.relname) AS parent,
       has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS is_readable,
       (SELECT quote_ident(a.attname) FROM pg_attribute a
         WHERE k.partstrat = 'r' AND k.partnatts = 1 AND a.attrelid = k.partrelid AND a.attnum = k.partattrs[0]) AS key
  FROM pg_partitioned_table k
  JOIN pg_class c ON c.oid = k.partdefid AND c.relkind = 'r'
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_class p ON p.oid = k.partrelid
  JOIN pg_namespace pn ON pn.oid = p.relnamespace
 WHERE NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation IN (c.oid, p.oid) AND l.mode = 'AccessExclusiveLock'
                      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
 ORDER BY 2
