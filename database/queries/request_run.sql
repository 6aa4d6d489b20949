-- $1 job, $2 trigger, $3 who: asks for a run; one that waits already is the same
WITH waiting AS (
    SELECT scheduled_for FROM runs WHERE job = $1 AND finished_at IS NULL AND attempt = 0 ORDER BY scheduled_for LIMIT 1
), added AS (
    INSERT INTO runs (job, scheduled_for, trigger, requested_by)
    SELECT $1, clock_timestamp(), $2, $3 WHERE NOT EXISTS (SELECT FROM waiting)
    RETURNING scheduled_for
)
SELECT scheduled_for FROM added UNION ALL SELECT scheduled_for FROM waiting
