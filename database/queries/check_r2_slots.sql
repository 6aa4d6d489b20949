-- replication slots that somebody has to catch up with, and the WAL that each keeps
SELECT s.slot_name::text AS name, s.slot_type, s.active, s.wal_status,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                       s.restart_lsn)::float8 AS kept_bytes,
       extract(epoch FROM clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz)::float8 AS inactive_s,
       pg_size_bytes(CASE current_setting('max_slot_wal_keep_size') WHEN '-1' THEN NULL
                     ELSE current_setting('max_slot_wal_keep_size') END)::float8 AS keep_limit_bytes
  FROM pg_replication_slots s
 WHERE NOT s.temporary
 ORDER BY kept_bytes DESC NULLS LAST
