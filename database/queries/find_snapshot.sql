-- $1 target, $2 check, $3 name, $4 epoch, $5 now, $6 shortest interval in seconds: the snapshot of about an hour ago.
SELECT at, counters FROM counter_snapshots
 WHERE target = $1 AND check_id = $2 AND name = $3 AND epoch = $4
   AND at <= $5::timestamptz - make_interval(secs => $6) AND at > $5::timestamptz - interval '26 hours'
 ORDER BY abs(extract(epoch FROM $5::timestamptz - at) - 3600) LIMIT 1
