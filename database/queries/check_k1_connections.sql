-- clients of the whole server by role and application, with the limit that they share
SELECT coalesce(usename, '?') AS role, coalesce(nullif(application_name, ''), '?') AS application,
       count(*)::float8 AS sessions, count(*) FILTER (WHERE state = 'active')::float8 AS active,
       current_setting('max_connections')::float8
       - current_setting('superuser_reserved_connections')::float8
       - coalesce(current_setting('reserved_connections', true)::float8, 0) AS allowed
  FROM pg_stat_activity
 WHERE backend_type = 'client backend'
 GROUP BY role, application
 ORDER BY sessions DESC
