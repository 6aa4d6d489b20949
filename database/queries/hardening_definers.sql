-- A sentence for each SECURITY DEFINER function whose search_path is its caller's.
SELECT p.oid::regprocedure || ' is SECURITY DEFINER without a search_path' AS fault
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND NOT EXISTS (SELECT 1 FROM unnest(p.proconfig) AS c WHERE c LIKE 'search_path=%')
