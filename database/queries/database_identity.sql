-- The timeline is read from the WAL position: the control file may lag behind a promotion.
SELECT (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int AS timeline
