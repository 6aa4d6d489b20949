-- $1 job, $2 slot, $3 consumer, $4 attempt: says that it still runs; no row: it is ours no longer
UPDATE runs SET beat_at = clock_timestamp()
 WHERE job = $1 AND scheduled_for = $2 AND consumer = $3 AND attempt = $4 AND finished_at IS NULL
RETURNING true
