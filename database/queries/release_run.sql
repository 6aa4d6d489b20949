-- $1 job, $2 slot, $3 consumer, $4 attempt: hands a run back, for another to begin again
UPDATE runs SET consumer = NULL, beat_at = NULL,
       attempts = attempts || jsonb_build_object('attempt', attempt, 'consumer', consumer, 'started_at', started_at,
                                                 'ended_at', clock_timestamp(), 'ended', 'handed_back')
 WHERE job = $1 AND scheduled_for = $2 AND consumer = $3 AND attempt = $4 AND finished_at IS NULL
