-- $1 level, $2 windows: those that were rolled up before
SELECT extract(epoch FROM window_start)::bigint AS window_s FROM windows
 WHERE level = $1 AND window_start = ANY ($2::timestamptz[])
