-- Keep counters ($3, JSON) of a source ($1) and its epoch ($2) for the next run.
INSERT INTO signal_counters VALUES ($1, clock_timestamp(), $2, $3::jsonb)
ON CONFLICT (source) DO UPDATE SET at = excluded.at, epoch = excluded.epoch, counters = excluded.counters
