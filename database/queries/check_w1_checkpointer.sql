-- PostgreSQL 17 and newer: checkpoints by time and by request, WAL written, and what decides on them
SELECT c.num_timed::float8 AS timed, c.num_requested::float8 AS requested, w.wal_bytes::float8,
       pg_size_bytes(current_setting('max_wal_size'))::float8 AS max_wal_bytes,
       extract(epoch FROM current_setting('checkpoint_timeout')::interval)::float8 AS timeout_s
  FROM pg_stat_checkpointer c, pg_stat_wal w
