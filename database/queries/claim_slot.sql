-- $1 job, $2 interval in s, $3 consumer, $4 grace in s, $5 whether missed slots are one run, $6 how early we may be, s:
-- begins the newest slot ($5 false: the oldest missed one) unless it is taken or a run is open; needs the job's lock.
WITH newest AS (
    SELECT floor((extract(epoch FROM clock_timestamp())::float8 + $6::float8) / $2::float8) * $2::float8 AS at_s
), taken AS (
    -- A slot yet to come was taken while the clock was ahead.
    SELECT extract(epoch FROM max(scheduled_for))::float8 AS at_s FROM runs, newest
     WHERE job = $1 AND trigger = 'schedule' AND scheduled_for < to_timestamp(newest.at_s + $2::float8)
), slot AS (
    SELECT CASE WHEN $5 OR taken.at_s IS NULL THEN newest.at_s
           -- Half an interval on: a timestamp holds microseconds only, and may lie a little below its slot.
           ELSE greatest(floor(taken.at_s / $2 + 1.5) * $2, newest.at_s - floor($4::float8 / $2) * $2) END AS at_s
      FROM newest, taken WHERE taken.at_s IS NULL OR newest.at_s > taken.at_s + 0.000002
), judged AS (
    SELECT to_timestamp(at_s) AS at, extract(epoch FROM clock_timestamp())::float8 - at_s AS late_s FROM slot
)
INSERT INTO runs (job, scheduled_for, consumer, attempt, started_at, beat_at, finished_at, outcome, detail)
SELECT $1, at, n.consumer, n.attempt, n.started_at, n.started_at, n.finished_at, n.outcome, n.detail
  FROM judged CROSS JOIN LATERAL (
       SELECT $3::text, 1, clock_timestamp(), NULL::timestamptz, NULL::text, NULL::text WHERE late_s <= $4
       UNION ALL
       SELECT NULL, 0, NULL, clock_timestamp(), 'skipped', round(late_s::numeric) || ' s late' WHERE late_s > $4
       ) AS n (consumer, attempt, started_at, finished_at, outcome, detail)
 WHERE NOT EXISTS (SELECT FROM runs WHERE job = $1 AND finished_at IS NULL AND attempt > 0)
ON CONFLICT (job, scheduled_for) DO NOTHING
RETURNING scheduled_for, attempt, outcome, crashes
