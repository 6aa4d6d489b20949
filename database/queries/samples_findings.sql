-- Findings by check and severity (0 only where the check has answered), cost of the checks and of the last run.
SELECT 'streamgauge_findings' AS name, ARRAY[c.check_id, s.severity] AS labels,
       (SELECT count(*) FROM findings f
         WHERE f.check_id = c.check_id AND f.severity = s.severity AND f.state = 'open')::float8 AS value
  FROM (SELECT check_id, bool_or(status NOT IN ('error', 'insufficient_data')) AS has_answered
          FROM check_results GROUP BY check_id) c
 CROSS JOIN unnest(ARRAY['critical', 'info', 'warn']) AS s (severity)
 WHERE c.has_answered OR EXISTS (SELECT 1 FROM findings f
         WHERE f.check_id = c.check_id AND f.severity = s.severity AND f.state = 'open')
UNION ALL
SELECT 'streamgauge_check_duration_seconds', ARRAY[check_id], max(duration_s) FROM check_results GROUP BY check_id
UNION ALL
SELECT 'streamgauge_check_status', ARRAY[check_id, status], count(*)::float8
  FROM check_results GROUP BY check_id, status
UNION ALL
SELECT 'streamgauge_optimizer_connections', ARRAY[]::text[], connections::float8
  FROM (SELECT connections FROM optimizer_runs WHERE status = 'done' ORDER BY started_at DESC LIMIT 1) r
UNION ALL
SELECT 'streamgauge_optimizer_database_time_share', ARRAY[]::text[], statement_s / interval_s
  FROM (SELECT statement_s, interval_s FROM optimizer_runs WHERE status = 'done'
         ORDER BY started_at DESC LIMIT 1) r
 WHERE interval_s > 0
