-- A sentence when everybody may create in schema public.
SELECT 'PUBLIC may create in schema public' AS fault
  FROM pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) AS a
 WHERE nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE'
