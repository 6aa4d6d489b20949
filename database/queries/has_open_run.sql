-- $1 job: whether a run of it was begun and has not ended
SELECT EXISTS (SELECT FROM runs WHERE job = $1 AND finished_at IS NULL AND attempt > 0)
