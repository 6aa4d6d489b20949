-- How this server stands and which heartbeat it has.
SELECT pg_is_in_recovery() AS is_standby, current_setting('server_version') AS version,
       (SELECT at FROM heartbeats) AS beat_at,
       (SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM heartbeats) AS beat_age_s
