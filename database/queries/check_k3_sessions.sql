-- time of sessions and of their statements in this database, as counted when a session's state changes
SELECT session_time AS session_ms, active_time AS active_ms, numbackends::float8 AS sessions
  FROM pg_stat_database WHERE datname = current_database()
