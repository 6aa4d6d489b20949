-- $1 lowest age: databases and tables of this database whose oldest transaction or multixact is at least as old
SELECT 'database' AS kind, quote_ident(d.datname) AS name,
       age(d.datfrozenxid)::float8 AS xid_age, mxid_age(d.datminmxid)::float8 AS multixact_age,
       NULL::float8 AS size_bytes,
       current_setting('autovacuum_freeze_max_age')::float8 AS freeze_max_age
  FROM pg_database d
 WHERE d.datallowconn AND greatest(age(d.datfrozenxid), mxid_age(d.datminmxid)) >= $1::float8
UNION ALL
(SELECT 'table', format('%I.%I', n.nspname, c.relname),
        greatest(age(c.relfrozenxid), age(t.relfrozenxid))::float8,
        greatest(mxid_age(c.relminmxid), mxid_age(t.relminmxid))::float8,
        8192.0 * (c.relpages + coalesce(t.relpages, 0)),
        current_setting('autovacuum_freeze_max_age')::float8
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
  WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
    AND greatest(age(c.relfrozenxid), age(t.relfrozenxid), mxid_age(c.relminmxid), mxid_age(t.relminmxid)) >= $1::float8
  ORDER BY 3 DESC, c.relpages DESC
  LIMIT 100)
