-- Reads the commits since the last upkeep that came to its end.
WITH touched AS (
    SELECT id, max(at) AS at FROM commits, unnest(series_ids) AS id
     WHERE at >= coalesce((SELECT max(started_at) FROM runs WHERE job = 'upkeep' AND finished_at IS NOT NULL),
                          '-infinity') - interval '10 s'
     GROUP BY id
)
UPDATE series s SET active_at = t.at FROM touched t
 WHERE s.series_id = t.id AND s.active_at < t.at - interval '50 s'
