-- A sentence for each login role (but superusers and replication) that sets no time-out of its own.
SELECT r.rolname || ' has no ' || t.name AS fault
  FROM pg_roles r CROSS JOIN (VALUES ('statement_timeout'), ('idle_in_transaction_session_timeout')) AS t (name)
 WHERE r.rolcanlogin AND NOT r.rolsuper AND NOT r.rolreplication
   AND NOT EXISTS (SELECT 1 FROM unnest(r.rolconfig) AS c WHERE c LIKE t.name || '=%')
