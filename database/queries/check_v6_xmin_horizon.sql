-- who holds back the xmin horizon of this database, oldest first: sessions, slots, prepared transactions, standbys
SELECT * FROM (
    SELECT 'session' AS kind,
           coalesce(a.usename, '?') || ' / ' || coalesce(nullif(a.application_name, ''), '?') AS name,
           a.pid,
           greatest(age(a.backend_xmin), age(a.backend_xid))::bigint AS age_xids,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age_s,
           a.state
      FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
       AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
       AND a.backend_type NOT IN ('autovacuum worker', 'walsender')
       AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum v WHERE v.pid = a.pid)
    UNION ALL
    SELECT 'replication slot', s.slot_name, s.active_pid,
           greatest(age(s.xmin), age(s.catalog_xmin))::bigint, NULL,
           CASE WHEN s.active THEN 'active' ELSE 'inactive' END
      FROM pg_replication_slots s
     WHERE (s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL) AND (s.database IS NULL OR s.database = current_database())
    UNION ALL
    SELECT 'prepared transaction', p.gid, NULL, age(p.transaction)::bigint,
           extract(epoch FROM clock_timestamp() - p.prepared)::float8, 'prepared by ' || p.owner
      FROM pg_prepared_xacts p WHERE p.database = current_database()
    UNION ALL
    SELECT 'standby', coalesce(nullif(r.application_name, ''), r.client_addr::text, '?'), r.pid,
           age(r.backend_xmin)::bigint, NULL, r.state
      FROM pg_stat_replication r WHERE r.backend_xmin IS NOT NULL
) AS holder
ORDER BY age_xids DESC, age_s DESC NULLS LAST
LIMIT 100
