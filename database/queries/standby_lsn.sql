-- Bytes of WAL written, and flushed by the slowest standby (null without standbys), and of which database.
SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS written,
       (SELECT min(pg_wal_lsn_diff(coalesce(flush_lsn, '0/0'), '0/0'))::bigint
          FROM pg_stat_replication WHERE application_name <> 'pg_basebackup') AS flushed,
       (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int AS timeline
