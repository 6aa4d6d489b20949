-- Bytes of WAL written, and flushed by the slowest standby (null without standbys).
SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS written,
       (SELECT min(pg_wal_lsn_diff(coalesce(flush_lsn, '0/0'), '0/0'))::bigint
          FROM pg_stat_replication WHERE application_name <> 'pg_basebackup') AS flushed
