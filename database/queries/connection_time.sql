-- Milliseconds that connections of this database were busy since its statistics began, the connections there are, and
-- the clients that have them: an application on several machines is as many, several of one machine are one.
SELECT current_database()::text AS database, d.active_time + d.idle_in_transaction_time AS busy_ms,
       (SELECT count(*) FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND datname = current_database()) AS open,
       (SELECT count(DISTINCT (application_name, client_addr)) FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND datname = current_database()) AS clients,
       current_setting('max_connections')::int AS max_connections,
       current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved,
       pg_postmaster_start_time()::text || coalesce(d.stats_reset::text, '') AS epoch
  FROM pg_stat_database d WHERE d.datname = current_database()
