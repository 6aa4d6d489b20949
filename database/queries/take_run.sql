-- $1 job, $2 consumer, $3 seconds after which a beat has stopped, $4 crashes allowed: begins the oldest run that was
-- asked for, handed back or left by a crash; one that crashed too often has failed. Needs the job's lock.
UPDATE runs AS r SET
       attempts = CASE WHEN o.crashed THEN r.attempts || jsonb_build_object(
                       'attempt', r.attempt, 'consumer', r.consumer,
                       'started_at', r.started_at, 'ended_at', r.beat_at, 'ended', 'crashed') ELSE r.attempts END,
       crashes = o.crashes,
       attempt = r.attempt + o.goes_on::int,
       consumer = CASE WHEN o.goes_on THEN $2 ELSE r.consumer END,
       started_at = CASE WHEN o.goes_on THEN clock_timestamp() ELSE r.started_at END,
       beat_at = CASE WHEN o.goes_on THEN clock_timestamp() ELSE r.beat_at END,
       finished_at = CASE WHEN NOT o.goes_on THEN clock_timestamp() END,
       outcome = CASE WHEN NOT o.goes_on THEN 'failed' END,
       detail = CASE WHEN NOT o.goes_on THEN 'crashed ' || o.crashes || ' times' END
  FROM (SELECT job, scheduled_for, consumer IS NOT NULL AS crashed, crashes + (consumer IS NOT NULL)::int AS crashes,
               crashes + (consumer IS NOT NULL)::int < $4::int AS goes_on
          FROM runs
         WHERE job = $1 AND finished_at IS NULL
           AND (consumer IS NULL OR beat_at < clock_timestamp() - make_interval(secs => $3::float8))
         ORDER BY scheduled_for LIMIT 1 FOR UPDATE SKIP LOCKED) AS o
 WHERE r.job = o.job AND r.scheduled_for = o.scheduled_for
RETURNING r.scheduled_for, r.attempt, r.outcome, r.crashes
