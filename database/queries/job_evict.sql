-- $1 job, $2 seconds after which a beat has stopped: ends the session that holds its lock without a beat
SELECT pg_terminate_backend(pid) FROM pg_locks
 WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND pid <> pg_backend_pid()
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND classid::bigint = hashtext(current_schema() || '.jobs')::bigint & 4294967295
   AND objid::bigint = hashtext($1)::bigint & 4294967295
   AND EXISTS (SELECT FROM runs WHERE job = $1 AND finished_at IS NULL AND consumer IS NOT NULL
                  AND beat_at < clock_timestamp() - make_interval(secs => $2::float8))
