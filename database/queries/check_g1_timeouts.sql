-- roles that log in and are no superusers, with each time-out that neither they nor this database set for them. The
-- server's own value is hidden behind the time-outs of the session that asks.
SELECT quote_ident(r.rolname) AS role, t.name
  FROM pg_roles r, unnest(ARRAY['statement_timeout', 'idle_in_transaction_session_timeout']) AS t(name)
 WHERE r.rolcanlogin AND NOT r.rolsuper AND NOT r.rolreplication
   AND NOT EXISTS (
       SELECT FROM pg_db_role_setting s, unnest(s.setconfig) AS o
        WHERE s.setrole IN (r.oid, 0) AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
          AND split_part(o, '=', 1) = t.name AND substring(o FROM '=(.*)$') !~ '^0+[a-z]*$')
 ORDER BY 1, 2
