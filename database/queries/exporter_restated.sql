-- $1 level, $2 from, $3 to (exclusive): windows that changed after they were first rolled up.
SELECT extract(epoch FROM window_start)::bigint AS window_s, revision FROM windows
 WHERE level = $1 AND window_start >= $2 AND window_start < $3 AND revision > 0
