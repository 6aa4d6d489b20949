-- What a target says of itself: version, where names resolve, extensions, and the epoch of its statistics.
-- A crash loses statistics and moves pg_stat_bgwriter.stats_reset; a restart keeps both.
SELECT current_setting('server_version_num')::int / 10000 AS version,
       current_setting('server_version') AS server_version,
       current_setting('search_path') AS search_path,
       pg_is_in_recovery() AS is_replica,
       -- Without its library loaded the view pg_stat_statements only raises an error.
       ARRAY(SELECT extname::text FROM pg_extension WHERE extname <> 'pg_stat_statements'
                 OR current_setting('pg_stat_statements.max', true) IS NOT NULL ORDER BY 1) AS extensions,
       ARRAY(SELECT DISTINCT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
              WHERE n.nspname NOT IN ('pg_catalog', 'public')) AS extension_schemas,
       concat_ws('/', (SELECT system_identifier FROM pg_control_system()), d.datname,
                 CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
                      ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
                 extract(epoch FROM d.stats_reset), extract(epoch FROM b.stats_reset)) AS epoch,
       extract(epoch FROM clock_timestamp() - greatest(d.stats_reset, b.stats_reset))::float8 AS stats_age_s
  FROM pg_stat_database d, pg_stat_bgwriter b
 WHERE d.datname = current_database()
