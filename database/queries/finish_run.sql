-- $1 job, $2 slot, $3 consumer, $4 attempt, $5 outcome, $6 detail, $7 facts; no row: it is ours no longer
UPDATE runs SET finished_at = clock_timestamp(), outcome = $5, detail = $6, facts = $7::text::jsonb,
       attempts = attempts || jsonb_build_object('attempt', attempt, 'consumer', consumer, 'started_at', started_at,
                                                 'ended_at', clock_timestamp(), 'ended', $5::text)
 WHERE job = $1 AND scheduled_for = $2 AND consumer = $3 AND attempt = $4 AND finished_at IS NULL
RETURNING true
