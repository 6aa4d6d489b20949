-- sessions of this database that wait for a lock, for how long, and who is in their way (0: a prepared transaction)
SELECT a.pid, pg_blocking_pids(a.pid) AS blockers,
       extract(epoch FROM clock_timestamp()
           - coalesce((SELECT min(l.waitstart) FROM pg_locks l WHERE l.pid = a.pid AND NOT l.granted), a.state_change)
       )::float8 AS waited_s
  FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.wait_event_type = 'Lock'
