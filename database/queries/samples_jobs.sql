-- The schedule: last success, next slot, duration of the last run, runs by outcome, crashes, overdue jobs.
SELECT 'streamgauge_job_last_success_timestamp_seconds' AS name, ARRAY[job] AS labels,
       extract(epoch FROM last_success_at)::float8 AS value FROM jobs WHERE last_success_at IS NOT NULL
UNION ALL
SELECT 'streamgauge_job_next_run_timestamp_seconds', ARRAY[job],
       (floor(extract(epoch FROM now())::float8 / every_s) + 1) * every_s FROM jobs
UNION ALL
SELECT 'streamgauge_job_overdue', ARRAY[job],
       (extract(epoch FROM now() - coalesce(last_success_at, first_seen_at)) > 3 * every_s)::int::float8 FROM jobs
UNION ALL
SELECT 'streamgauge_job_runs_total', ARRAY[j.job, o.outcome], coalesce(t.n, 0)::float8
  FROM jobs j
 CROSS JOIN unnest(ARRAY['done', 'failed', 'insufficient_data', 'skipped', 'timed_out']) AS o (outcome)
  LEFT JOIN job_tallies t ON t.job = j.job AND t.outcome = o.outcome
UNION ALL
SELECT 'streamgauge_job_crashes_total', ARRAY[j.job], coalesce(t.n, 0)::float8
  FROM jobs j LEFT JOIN job_tallies t ON t.job = j.job AND t.outcome = 'crashed'
UNION ALL
SELECT 'streamgauge_job_last_duration_seconds', ARRAY[j.job],
       extract(epoch FROM r.finished_at - r.started_at)::float8
  FROM jobs j CROSS JOIN LATERAL (
       SELECT started_at, finished_at FROM runs
        WHERE job = j.job AND finished_at IS NOT NULL AND attempt > 0 ORDER BY scheduled_for DESC LIMIT 1) AS r
