-- $1 series ids, $2 start: events and sums of windows since then. Parts arrive at most a minute before their window.
SELECT series_id, sum(n)::bigint AS n, sum(sum) AS sum
  FROM (SELECT series_id, n, sum FROM parts
         WHERE series_id = ANY ($1) AND window_start >= $2 AND arrived >= $2::timestamptz - interval '2 minutes'
        UNION ALL
        SELECT series_id, n, sum FROM rollup_10s WHERE series_id = ANY ($1) AND window_start >= $2) AS both_sources
 GROUP BY series_id
