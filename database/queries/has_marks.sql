-- $1 level, $2 from, $3 until (exclusive)
SELECT EXISTS (SELECT FROM dirty WHERE level = $1 AND window_start >= $2 AND window_start < $3)
