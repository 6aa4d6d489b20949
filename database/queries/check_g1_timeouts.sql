-- Roles that log in and are no superusers, with each time-out as it holds for them in this database, as it was written:
-- of the role here, of the role, of this database, of all roles, of the server. value NULL: nobody set it, or only the
-- server did and that is hidden: the role that asks has one of its own (is_hidden). own_value: what ALTER ROLE set.
WITH said AS (
    SELECT s.setrole, s.setdatabase, split_part(o, '=', 1) AS name, substring(o FROM '=(.*)$') AS value
      FROM pg_db_role_setting s, unnest(s.setconfig) AS o
     WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
), server AS (
    SELECT p.name, p.reset_val AS value,
           EXISTS (SELECT FROM said d WHERE d.name = p.name
                      AND d.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))) AS is_hidden
      FROM pg_settings p WHERE p.name IN ('statement_timeout', 'idle_in_transaction_session_timeout')
)
SELECT r.rolname::text AS name, quote_ident(r.rolname) AS role, t.name AS setting, t.is_hidden,
       coalesce((SELECT d.value FROM said d WHERE d.name = t.name AND d.setrole IN (r.oid, 0)
                  ORDER BY d.setrole DESC, d.setdatabase DESC LIMIT 1),
                CASE WHEN NOT t.is_hidden THEN t.value END) AS value,
       (SELECT d.value FROM said d WHERE d.name = t.name AND d.setrole = r.oid AND d.setdatabase = 0) AS own_value
  FROM pg_roles r CROSS JOIN server t
 WHERE r.rolcanlogin AND NOT r.rolsuper AND NOT r.rolreplication
 ORDER BY 1, 3
