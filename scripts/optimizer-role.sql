-- A role that DatabaseOptimizer looks at a database with: it reads statistics and changes nothing.
-- Run as a superuser in the database to look at, with psql; running it again sets the password anew:
--   OPTIMIZER_PASSWORD=… psql -f scripts/optimizer-role.sql shop
-- Then name the database: STREAMGAUGE_OPTIMIZER_TARGETS="shop=postgresql://streamgauge_optimizer:…@host/shop"
\set ON_ERROR_STOP on
\set password `printf %s "$OPTIMIZER_PASSWORD"`
SET client_min_messages = warning;

BEGIN;

SELECT :'password' = '' AS is_missing \gset
\if :is_missing
    DO $$ BEGIN RAISE EXCEPTION 'OPTIMIZER_PASSWORD is not set'; END $$;
\endif

SELECT NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'streamgauge_optimizer') AS is_new \gset
\if :is_new
    CREATE ROLE streamgauge_optimizer LOGIN;
\endif
ALTER ROLE streamgauge_optimizer WITH LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT 5 PASSWORD :'password';

-- Statistics, settings and statements of all roles; no rows of any table.
GRANT pg_monitor TO streamgauge_optimizer;

-- The optimizer sets these itself; here they hold whoever else gets hold of the password.
ALTER ROLE streamgauge_optimizer SET default_transaction_read_only = on;
ALTER ROLE streamgauge_optimizer SET statement_timeout = '30s';
ALTER ROLE streamgauge_optimizer SET lock_timeout = '1s';
ALTER ROLE streamgauge_optimizer SET idle_in_transaction_session_timeout = '60s';

COMMIT;

-- What more it can tell, and what that costs:
-- * Statements (Q1, Q2, Q3, I2, P4): pg_stat_statements in shared_preload_libraries (a restart), then
--     CREATE EXTENSION pg_stat_statements;
-- * Plans with indexes that do not exist (I2): the package postgresql-NN-hypopg, then
--     CREATE EXTENSION hypopg;
--   and the right to read the tables, without which no statement on them can be planned:
--     GRANT pg_read_all_data TO streamgauge_optimizer;
--   Estimates from column statistics (B2, B3, S1) and rows in default partitions (P2) need it too.
--
-- To let `streamgauge optimize --apply` change this database, name a second address in
-- STREAMGAUGE_OPTIMIZER_APPLY_TARGETS: indexes are made and dropped by the owner of the table.
