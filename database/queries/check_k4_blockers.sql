-- $1 pids: who they are
SELECT pid, coalesce(usename, '?') AS role, coalesce(nullif(application_name, ''), '?') AS application, state,
       extract(epoch FROM clock_timestamp() - xact_start)::float8 AS transaction_s
  FROM pg_stat_activity WHERE pid = ANY ($1::int[])
