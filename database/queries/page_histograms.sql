-- Histograms that have data in a day, and how many series each has; $1 the kind of histograms.
SELECT m.name, m.unit, m.help, count(*) AS series
  FROM metrics m JOIN series s USING (metric_id)
 WHERE m.kind = $1 AND s.active_at > now() - interval '1 day'
 GROUP BY m.name, m.unit, m.help ORDER BY m.name LIMIT 200
