-- sessions of this database that have a transaction open and do nothing, the longest first
SELECT pid, coalesce(usename, '?') AS role, coalesce(nullif(application_name, ''), '?') AS application, state,
       extract(epoch FROM clock_timestamp() - state_change)::float8 AS idle_s, state_change AS idle_since,
       extract(epoch FROM clock_timestamp() - xact_start)::float8 AS in_transaction_s
  FROM pg_stat_activity
 WHERE datname = current_database() AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()
 ORDER BY idle_s DESC
