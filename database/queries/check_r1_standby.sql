-- this server as a standby: whether it receives, and how old what it replayed is (nothing to replay: not old)
SELECT pg_is_in_recovery() AS is_standby,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all,
       (SELECT status FROM pg_stat_wal_receiver) AS receiver,
       CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
            ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END::float8 AS replay_age_s,
       pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::float8 AS behind_bytes
