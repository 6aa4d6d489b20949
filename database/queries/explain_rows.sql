-- $1 series key, $2 window: its rows as they are stored
SELECT 'rollup_10s' AS table, r.producer_no, r.n, r.sum FROM rollup_10s r JOIN series s USING (series_id)
 WHERE s.key = $1 AND r.window_start = $2
UNION ALL
SELECT 'parts', p.producer_no, p.n, p.sum FROM parts p JOIN series s USING (series_id)
 WHERE s.key = $1 AND p.window_start = $2
