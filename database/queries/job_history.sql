-- $1 job (null: all), $2 limit, $3 slot (null: any): runs, newest first
SELECT job, scheduled_for, started_at, finished_at, outcome, detail, consumer, attempt, trigger, requested_by,
       extract(epoch FROM finished_at - started_at)::float8 AS duration_s,
       attempts::text AS attempts, facts::text AS facts
  FROM runs
 WHERE job = coalesce($1, job) AND scheduled_for = coalesce($3, scheduled_for)
 ORDER BY scheduled_for DESC, job LIMIT $2
