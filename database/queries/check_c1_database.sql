-- blocks that this database asked for, and what reading them took
SELECT blks_hit::float8, blks_read::float8, blk_read_time::float8 AS read_ms,
       current_setting('track_io_timing')::boolean AS times_reads,
       pg_size_bytes(current_setting('shared_buffers'))::float8 AS shared_buffers_bytes
  FROM pg_stat_database WHERE datname = current_database()
