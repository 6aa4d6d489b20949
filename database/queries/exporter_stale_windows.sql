-- $1 from, $2 to (exclusive): windows whose stored row lags behind the level below.
SELECT DISTINCT level, extract(epoch FROM window_start)::bigint AS window_s FROM dirty
 WHERE window_start >= date_bin('1 hour', $1, 'epoch') AND window_start < $2
