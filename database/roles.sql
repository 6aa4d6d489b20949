-- The roles of streamgauge's own database: one for each service, none with more than that service does.
-- Run by init-primary.sh as the superuser in that database, passwords in the environment; running it again sets the
-- passwords anew and changes nothing else. What a role may do with tables is granted by `streamgauge migrate`.
-- A role to look at another database with: scripts/optimizer-role.sql.
\set ON_ERROR_STOP on
\set owner_password `printf %s "$OWNER_PASSWORD"`
\set aggregator_password `printf %s "$AGGREGATOR_PASSWORD"`
\set exporter_password `printf %s "$EXPORTER_PASSWORD"`
\set optimizer_password `printf %s "$OPTIMIZER_PASSWORD"`
\set metrics_password `printf %s "$METRICS_PASSWORD"`
\set api_password `printf %s "$API_PASSWORD"`
SET client_min_messages = warning;

-- A password must be in no log and in no statistics of statements.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET pg_stat_statements.track = 'none';

BEGIN;

SELECT '' IN (:'owner_password', :'aggregator_password', :'exporter_password', :'optimizer_password',
              :'metrics_password', :'api_password') AS is_missing \gset
\if :is_missing
    DO $$ BEGIN RAISE EXCEPTION 'a password is not set'; END $$;
\endif

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['streamgauge_owner', 'streamgauge_aggregator', 'streamgauge_exporter',
                                'streamgauge_optimizer', 'streamgauge_metrics', 'streamgauge_api']
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I', name);
        END IF;
        EXECUTE format('ALTER ROLE %I WITH LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS',
                       name);
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), name);
    END LOOP;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
END $$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- Owns the schema: `streamgauge migrate`, `streamgauge optimize --apply`, backup and restore. No service runs as it.
ALTER ROLE streamgauge_owner WITH CONNECTION LIMIT 10 PASSWORD :'owner_password';
ALTER ROLE streamgauge_owner SET lock_timeout = '30s';
ALTER ROLE streamgauge_owner SET statement_timeout = '1800s';
ALTER ROLE streamgauge_owner SET idle_in_transaction_session_timeout = '300s';

-- Folds, compacts, rolls up, runs the scheduled jobs. pg_monitor: DatabaseOptimizer sees the sessions of all roles.
ALTER ROLE streamgauge_aggregator WITH CONNECTION LIMIT 60 PASSWORD :'aggregator_password';
GRANT pg_monitor TO streamgauge_aggregator;
ALTER ROLE streamgauge_aggregator SET lock_timeout = '10s';
ALTER ROLE streamgauge_aggregator SET statement_timeout = '120s';
ALTER ROLE streamgauge_aggregator SET idle_in_transaction_session_timeout = '60s';

-- Reads; writes down what a person asked it for.
ALTER ROLE streamgauge_exporter WITH CONNECTION LIMIT 40 PASSWORD :'exporter_password';
ALTER ROLE streamgauge_exporter SET lock_timeout = '10s';
ALTER ROLE streamgauge_exporter SET statement_timeout = '30s';
ALTER ROLE streamgauge_exporter SET idle_in_transaction_session_timeout = '10s';

-- Looks at replicas for DatabaseOptimizer (STREAMGAUGE_OPTIMIZER_REPLICAS): statistics only, no rows of any table.
ALTER ROLE streamgauge_optimizer WITH CONNECTION LIMIT 10 PASSWORD :'optimizer_password';
GRANT pg_monitor TO streamgauge_optimizer;
ALTER ROLE streamgauge_optimizer SET default_transaction_read_only = on;
ALTER ROLE streamgauge_optimizer SET lock_timeout = '1s';
ALTER ROLE streamgauge_optimizer SET statement_timeout = '30s';
ALTER ROLE streamgauge_optimizer SET idle_in_transaction_session_timeout = '60s';

-- postgres_exporter.
ALTER ROLE streamgauge_metrics WITH CONNECTION LIMIT 10 PASSWORD :'metrics_password';
GRANT pg_monitor TO streamgauge_metrics;
ALTER ROLE streamgauge_metrics SET default_transaction_read_only = on;
ALTER ROLE streamgauge_metrics SET lock_timeout = '1s';
ALTER ROLE streamgauge_metrics SET statement_timeout = '15s';
ALTER ROLE streamgauge_metrics SET idle_in_transaction_session_timeout = '15s';

-- The reference API: its own schema, and nothing that is streamgauge's. Replicas emit through Redis only.
ALTER ROLE streamgauge_api WITH CONNECTION LIMIT 40 PASSWORD :'api_password';
ALTER ROLE streamgauge_api SET lock_timeout = '2s';
ALTER ROLE streamgauge_api SET statement_timeout = '5s';
ALTER ROLE streamgauge_api SET idle_in_transaction_session_timeout = '10s';
CREATE SCHEMA IF NOT EXISTS reference_app AUTHORIZATION streamgauge_api;

-- CREATE on the database: schemas. The owner makes streamgauge's; the aggregator makes one for each load-test run and
-- owns it. The owner is a member of the aggregator's role so that `migrate` can bring those schemas along.
DO $$
BEGIN
    EXECUTE format('GRANT CREATE ON DATABASE %I TO streamgauge_owner, streamgauge_aggregator', current_database());
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO streamgauge_owner', current_database());
END $$;
GRANT streamgauge_aggregator TO streamgauge_owner;

CREATE EXTENSION IF NOT EXISTS pg_stat_statements;

COMMIT;
