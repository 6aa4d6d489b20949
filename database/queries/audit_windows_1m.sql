-- $1 series, $2 tolerance: clean windows of the coarser level that are not the sum of those below. Windows older
-- than the finer level's oldest partition are left out: what they came from is archived.
WITH dirty_above AS (
    SELECT window_start FROM dirty WHERE level = '1m'
    UNION SELECT date_bin('1 minute', window_start, 'epoch') FROM dirty WHERE level IN ('1m', '1m')
), fine AS (
    SELECT series_id, date_bin('1 minute', window_start, 'epoch') AS window_start, sum(n)::bigint AS n, sum(sum) AS sum,
           sum(abs(sum)) AS size
      FROM rollup_10s WHERE series_id = ANY ($1::int[]) GROUP BY 1, 2
), coarse AS (
    SELECT series_id, window_start, sum(n)::bigint AS n, sum(sum) AS sum
      FROM rollup_1m WHERE series_id = ANY ($1::int[])
       AND window_start >= (SELECT date_bin('1 minute', min(window_start), 'epoch') FROM windows WHERE level = '10s')
     GROUP BY 1, 2
)
SELECT s.key, window_start, coalesce(f.n, 0) AS expected_n, coalesce(c.n, 0) AS found_n,
       coalesce(f.sum, 0) AS expected_sum, coalesce(c.sum, 0) AS found_sum
  FROM fine f FULL JOIN coarse c USING (series_id, window_start)
  JOIN series s USING (series_id)
 WHERE window_start NOT IN (SELECT window_start FROM dirty_above)
   AND (coalesce(f.n, 0) <> coalesce(c.n, 0)
        OR abs(coalesce(f.sum, 0) - coalesce(c.sum, 0)) > $2::float8 * coalesce(f.size, abs(c.sum), 0))
 ORDER BY 1, 2 LIMIT 51
