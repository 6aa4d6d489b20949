-- Every job with its newest run that began or ended, when its next slot comes, and whether it is overdue.
SELECT j.job, j.title, j.every_s, j.judges_data, j.last_success_at,
       to_timestamp((floor(extract(epoch FROM now())::float8 / j.every_s) + 1) * j.every_s) AS next_run,
       extract(epoch FROM now() - coalesce(j.last_success_at, j.first_seen_at))::float8 > 3 * j.every_s AS is_overdue,
       r.scheduled_for, r.started_at, r.finished_at, r.outcome, r.detail, r.consumer, r.attempt, r.trigger,
       extract(epoch FROM r.finished_at - r.started_at)::float8 AS duration_s
  FROM jobs j LEFT JOIN LATERAL (
       SELECT * FROM runs WHERE job = j.job AND (attempt > 0 OR outcome IS NOT NULL) ORDER BY scheduled_for DESC LIMIT 1
       ) AS r ON true
 ORDER BY j.job
