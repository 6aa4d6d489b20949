-- PostgreSQL 16 and older: checkpoints by time and by request, WAL written, and what decides on them
SELECT b.checkpoints_timed::float8 AS timed, b.checkpoints_req::float8 AS requested, w.wal_bytes::float8,
       pg_size_bytes(current_setting('max_wal_size'))::float8 AS max_wal_bytes,
       extract(epoch FROM current_setting('checkpoint_timeout')::interval)::float8 AS timeout_s
  FROM pg_stat_bgwriter b, pg_stat_wal w
