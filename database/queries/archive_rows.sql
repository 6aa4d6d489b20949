-- $1 level
INSERT INTO archived AS a (level, series_id, n, sum)
SELECT $1, series_id, sum(n)::bigint, sum(sum) FROM {table} GROUP BY series_id
ON CONFLICT (level, series_id) DO UPDATE SET n = a.n + excluded.n, sum = a.sum + excluded.sum
