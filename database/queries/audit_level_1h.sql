-- $1 tolerance: series of which this level does not add up to the total. Gauges have counts, but no sum over time.
WITH dirty_1m AS (SELECT DISTINCT window_start FROM dirty WHERE level = '1m'),
dirty_1h AS (
    SELECT window_start FROM dirty WHERE level = '1h'
    UNION SELECT date_bin('1 hour', window_start, 'epoch') FROM dirty_1m
), stored AS (
    SELECT series_id, n, sum FROM archived WHERE level = '1h'
    UNION ALL SELECT series_id, n, sum FROM rollup_1h WHERE window_start NOT IN (SELECT window_start FROM dirty_1h)
    UNION ALL SELECT series_id, n, sum FROM rollup_1m
               WHERE date_bin('1 hour', window_start, 'epoch') IN (SELECT window_start FROM dirty_1h)
                 AND window_start NOT IN (SELECT window_start FROM dirty_1m)
    UNION ALL SELECT series_id, n, sum FROM rollup_10s
               WHERE date_bin('1 minute', window_start, 'epoch') IN (SELECT window_start FROM dirty_1m)
    UNION ALL SELECT series_id, n, sum FROM parts
), level AS (
    SELECT series_id, sum(n)::bigint AS n, sum(sum) AS sum, sum(abs(sum)) AS size FROM stored GROUP BY series_id
), total AS (
    SELECT series_id, sum(n)::bigint AS n, sum(sum) AS sum FROM totals GROUP BY series_id
)
SELECT coalesce(t.series_id, l.series_id) AS series_id, coalesce(s.key, 'no such series') AS key,
       coalesce(t.n, 0) AS expected_n, coalesce(l.n, 0) AS found_n,
       coalesce(t.sum, 0) AS expected_sum, coalesce(l.sum, 0) AS found_sum
  FROM total t FULL JOIN level l USING (series_id)
  LEFT JOIN series s USING (series_id) LEFT JOIN metrics m USING (metric_id)
 WHERE coalesce(t.n, 0) <> coalesce(l.n, 0)
    OR (m.kind <> 2 AND abs(coalesce(t.sum, 0) - coalesce(l.sum, 0)) > $1::float8 * coalesce(l.size, 0))
 ORDER BY 1 LIMIT 51
