-- $1 identity of the database that was restored, or found whole: lowers every fence there, whoever left it up
UPDATE fences SET lowered_at = now()
 WHERE lowered_at IS NULL
   AND $1 = concat((SELECT system_identifier FROM pg_control_system()), '/',
                   ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int)
