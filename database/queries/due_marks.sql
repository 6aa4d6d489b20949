-- $1 level, $2 its width in seconds, $3 how long after its end a window may be rolled up, $4 at most so many windows
SELECT window_start, array_agg(mark_id) AS marks FROM dirty
 WHERE level = $1 AND window_start <= now() - make_interval(secs => $2::int + $3::int)
 GROUP BY window_start ORDER BY window_start LIMIT $4::int
