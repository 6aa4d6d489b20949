-- A sentence for each login role with rights over the whole server; one superuser with login is allowed.
SELECT rolname || ' ' || concat_ws(', ', CASE WHEN rolsuper THEN 'is a superuser' END,
                                   CASE WHEN rolcreatedb THEN 'may create databases' END,
                                   CASE WHEN rolcreaterole THEN 'may create roles' END,
                                   CASE WHEN rolbypassrls THEN 'bypasses row security' END) AS fault
  FROM pg_roles
 WHERE rolcanlogin AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls)
   AND oid <> (SELECT min(oid) FROM pg_roles WHERE rolsuper AND rolcanlogin)
