-- schema of pgstattuple_approx where the current role may run it
SELECT quote_ident(n.nspname)
  FROM pg_proc p
  JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pgstattuple'
  JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE p.proname = 'pgstattuple_approx' AND has_function_privilege(p.oid, 'EXECUTE')
