-- $1 target, $2 check, $3 name, $4 now: what was kept in earlier hours, oldest first.
SELECT object, hour, counters FROM hourly_values
 WHERE target = $1 AND check_id = $2 AND name = $3
   AND hour < date_trunc('hour', $4::timestamptz, 'UTC') AND hour > $4 - interval '14 days'
 ORDER BY object, hour
