-- Thresholds of the current bucket (hour of the day, UTC; weekends apart), which metrics are frozen, how old they are.
SELECT 'streamgauge_threshold' AS name, ARRAY[t.metric, t.route, t.side, s.severity] AS labels,
       CASE s.severity WHEN 'warn' THEN v.warn ELSE v.critical END AS value
  FROM thresholds t JOIN threshold_values v USING (threshold_id)
 CROSS JOIN unnest(ARRAY['critical', 'warn']) AS s (severity)
 WHERE NOT t.is_retired
   AND v.bucket = extract(hour FROM now() AT TIME ZONE 'UTC')
                + CASE WHEN extract(isodow FROM now() AT TIME ZONE 'UTC') >= 6 THEN 24 ELSE 0 END
UNION ALL
SELECT 'streamgauge_threshold_frozen', ARRAY[metric], bool_or(frozen IS NOT NULL)::int::float8
  FROM thresholds WHERE NOT is_retired GROUP BY metric
UNION ALL
SELECT 'streamgauge_threshold_age_seconds', ARRAY[]::text[], extract(epoch FROM now() - min(calibrated_at))::float8
  FROM thresholds WHERE NOT is_retired HAVING min(calibrated_at) IS NOT NULL
