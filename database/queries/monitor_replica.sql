-- How this server stands, what receives its WAL (a role without pg_monitor sees only that it runs), and which heartbeat
-- it has.
SELECT pg_is_in_recovery() AS is_standby, current_setting('server_version') AS version,
       (SELECT coalesce(status, 'running') FROM pg_stat_wal_receiver) AS receiver,
       (SELECT at FROM heartbeats) AS beat_at,
       (SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM heartbeats) AS beat_age_s
