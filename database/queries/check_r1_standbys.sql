-- standbys that stream from this server: what they have still to replay (walsenders only; empty without any)
SELECT coalesce(nullif(application_name, ''), client_addr::text, '?') AS name, state, sync_state,
       extract(epoch FROM replay_lag)::float8 AS replay_lag_s,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                       replay_lsn)::float8 AS behind_bytes
  FROM pg_stat_replication
 WHERE state <> 'backup' AND replay_lsn IS NOT NULL
 ORDER BY behind_bytes DESC
