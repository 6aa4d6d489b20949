-- $1 jobs, $2 seconds after which a beat has stopped: jobs with a run to begin; `crashed`: somebody had begun it
SELECT job, bool_or(consumer IS NOT NULL) AS crashed FROM runs
 WHERE finished_at IS NULL AND job = ANY ($1)
   AND (consumer IS NULL OR beat_at < clock_timestamp() - make_interval(secs => $2::float8))
 GROUP BY job
