UPDATE metrics m SET active = c.active
  FROM (SELECT m.metric_id, count(s.series_id)::int AS active
          FROM metrics m LEFT JOIN series s
            ON s.metric_id = m.metric_id AND s.active_at > now() - interval '24 hours'
         GROUP BY m.metric_id) AS c
 WHERE m.metric_id = c.metric_id AND m.active <> c.active
