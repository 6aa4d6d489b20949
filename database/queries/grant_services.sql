-- What each service may do in current_schema(), for the roles of database/roles.sql; nothing where there are none.
DO $$
DECLARE
    own text := quote_ident(current_schema());
    is_main boolean := current_schema() = 'streamgauge';
    has_maintain boolean := current_setting('server_version_num')::int >= 170000;
    wanted text;
    one record;
BEGIN
    IF to_regrole('streamgauge_aggregator') IS NOT NULL AND current_user <> 'streamgauge_aggregator' THEN
        -- MAINTAIN: VACUUM and ANALYZE. Before 17 only the owner may, and both are passed over with a warning.
        wanted := 'SELECT, INSERT, UPDATE, DELETE' || CASE WHEN has_maintain THEN ', MAINTAIN' ELSE '' END;
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO streamgauge_aggregator', own);
        EXECUTE format('GRANT SELECT ON ALL SEQUENCES IN SCHEMA %s TO streamgauge_aggregator', own);
        EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %s TO streamgauge_aggregator', own);
        EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %s GRANT %s ON TABLES TO streamgauge_aggregator', own, wanted);
        -- Only what lacks it: partitions come and go meanwhile, and the default reaches those that come.
        FOR one IN SELECT oid::regclass AS name FROM pg_class
                    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
                      AND NOT has_table_privilege('streamgauge_aggregator', oid,
                                              CASE WHEN has_maintain THEN 'MAINTAIN' ELSE 'DELETE' END) LOOP
            EXECUTE format('GRANT %s ON %s TO streamgauge_aggregator', wanted, one.name);
        END LOOP;
    END IF;

    IF is_main AND to_regrole('streamgauge_exporter') IS NOT NULL THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO streamgauge_exporter', own);
        EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %s GRANT SELECT ON TABLES TO streamgauge_exporter', own);
        FOR one IN SELECT oid::regclass AS name FROM pg_class
                    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
                      AND NOT has_table_privilege('streamgauge_exporter', oid, 'SELECT') LOOP
            EXECUTE format('GRANT SELECT ON %s TO streamgauge_exporter', one.name);
        END LOOP;
        -- Since when a component is what it is; runs and limits that a person asked for.
        GRANT INSERT, UPDATE ON component_states TO streamgauge_exporter;
        GRANT INSERT ON runs, threshold_changes TO streamgauge_exporter;
        GRANT INSERT, UPDATE ON threshold_values TO streamgauge_exporter;
        GRANT UPDATE (frozen) ON thresholds TO streamgauge_exporter;
        GRANT DELETE ON threshold_medians TO streamgauge_exporter;
    END IF;
    IF is_main AND to_regrole('streamgauge_optimizer') IS NOT NULL THEN
        -- Names of tables in statistics; no rows but the time by which a replica's lag is told.
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO streamgauge_optimizer', own);
        GRANT SELECT ON heartbeats TO streamgauge_optimizer;
    END IF;
END $$
