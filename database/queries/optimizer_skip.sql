-- $1 reason: note a run that did not take place.
INSERT INTO optimizer_runs (status, skipped_reason, finished_at) VALUES ('skipped', $1, clock_timestamp())
