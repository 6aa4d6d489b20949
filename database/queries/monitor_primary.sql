-- Whether this server takes writes (an xid is assigned, nothing is written), and when its heartbeat row was touched.
SELECT pg_current_xact_id() IS NOT NULL AS is_writable, current_setting('server_version') AS version,
       (SELECT at FROM heartbeats) AS beat_at,
       (SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM heartbeats) AS beat_age_s
