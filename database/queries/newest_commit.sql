-- The newest commit there is (the newest are never pruned) and when it was made (0 and null before the first), and which
-- database has it. The timeline is read from the WAL position: the control file may lag behind a promotion.
SELECT coalesce(max(commit_id), 0) AS commit_id, extract(epoch FROM max(at))::float8 AS at_s,
       (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int AS timeline
  FROM (SELECT commit_id, at FROM commits ORDER BY commit_id DESC LIMIT 1) AS newest
