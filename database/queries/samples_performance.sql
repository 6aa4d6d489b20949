-- Recommendations by kind and state, and when signals were last collected.
SELECT 'streamgauge_recommendations' AS name, ARRAY[kind, state] AS labels, count(*)::float8 AS value
  FROM recommendations GROUP BY kind, state
UNION ALL
SELECT 'streamgauge_collected_timestamp_seconds', ARRAY[]::text[], extract(epoch FROM max(collected_at))::float8
  FROM signals HAVING count(*) > 0
