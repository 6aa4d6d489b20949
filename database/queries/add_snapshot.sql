-- $1 target, $2 check, $3 name, $4 at, $5 epoch, $6 counters: what counters are now.
INSERT INTO counter_snapshots (target, check_id, name, at, epoch, counters) VALUES ($1, $2, $3, $4, $5, $6::text::jsonb)
ON CONFLICT (target, check_id, name, at) DO UPDATE SET epoch = excluded.epoch, counters = excluded.counters
