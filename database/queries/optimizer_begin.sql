-- Begin a run: one that is still `running` lost its process, for this session holds the lock.
WITH lost AS (
    UPDATE optimizer_runs SET status = 'failed', finished_at = clock_timestamp(), skipped_reason = 'its process ended'
     WHERE status = 'running'
)
INSERT INTO optimizer_runs (status, interval_s)
VALUES ('running', (SELECT extract(epoch FROM clock_timestamp() - max(started_at))::float8
                      FROM optimizer_runs WHERE status NOT IN ('skipped', 'applied')))
RETURNING run_id
