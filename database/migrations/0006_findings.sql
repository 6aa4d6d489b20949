-- Main schema only: what DatabaseOptimizer finds, what it did, and the counters it compares with.

CREATE TABLE optimizer_runs (             -- one execution, also those asked for by hand and those that were skipped
    run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,              -- null: under way, or its process died
    status text NOT NULL,                 -- running, done, failed, skipped
    skipped_reason text,
    statement_s float8 NOT NULL DEFAULT 0,  -- time the run's own statements took, as the client saw it
    interval_s float8,                    -- since the run before it began; null: there was none
    connections int NOT NULL DEFAULT 0    -- most it had open at once
);
CREATE INDEX optimizer_runs_started ON optimizer_runs (started_at);  -- optimization_last_run, prune_optimization

CREATE TABLE optimizer_targets (
    target text PRIMARY KEY,
    epoch text NOT NULL,                  -- server, timeline and last reset: another one makes counters incomparable
    observed_since timestamptz NOT NULL DEFAULT now(),  -- under this epoch
    seen_at timestamptz NOT NULL DEFAULT now(),
    stats_age_s float8,
    facts jsonb NOT NULL DEFAULT '{}'     -- version, extensions, nodes seen and unseen, error
);

CREATE TABLE check_results (              -- newest answer of each check
    target text NOT NULL,
    check_id text NOT NULL,
    title text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    status text NOT NULL,                 -- ok, warn, critical, error, insufficient_data
    duration_s float8 NOT NULL,
    findings int NOT NULL,                -- found now, before the cap
    error_kind text,                      -- permission, timeout, unsupported, unreachable, budget, fault
    detail text,
    PRIMARY KEY (target, check_id)
);

CREATE TABLE findings (
    fingerprint text PRIMARY KEY,         -- of check, object and target
    target text NOT NULL,
    check_id text NOT NULL,
    object text NOT NULL,
    severity text NOT NULL,
    evidence jsonb NOT NULL,
    recommendation text NOT NULL,
    sql text,
    rollback text,
    tier text NOT NULL,
    remedy text NOT NULL,
    state text NOT NULL,                  -- pending, open, resolved
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    runs_seen int NOT NULL,               -- since first_seen
    runs_absent int NOT NULL DEFAULT 0    -- in a row
);

CREATE TABLE applied_actions (
    action_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    target text NOT NULL,
    check_id text NOT NULL,
    fingerprint text NOT NULL,
    tier text NOT NULL,                   -- automatic, opt_in
    sql text NOT NULL,
    rollback text,                        -- null: there is nothing to undo
    before jsonb NOT NULL,
    after jsonb,
    finished_at timestamptz,              -- null: under way, or its process died
    error text
);

CREATE TABLE counter_snapshots (          -- what counters were, to compare with an hour later
    target text NOT NULL,
    check_id text NOT NULL,
    name text NOT NULL,
    at timestamptz NOT NULL,
    epoch text NOT NULL,
    counters jsonb NOT NULL,
    PRIMARY KEY (target, check_id, name, at)
);

CREATE TABLE hourly_values (              -- what `remember` keeps for 14 days
    target text NOT NULL,
    check_id text NOT NULL,
    name text NOT NULL,
    object text NOT NULL,
    hour timestamptz NOT NULL,
    counters jsonb NOT NULL,
    PRIMARY KEY (target, check_id, name, object, hour)
);

CREATE TABLE observed_objects (           -- since when an object is known: the catalogue does not say how old it is
    target text NOT NULL,
    check_id text NOT NULL,
    object text NOT NULL,
    first_seen timestamptz NOT NULL,
    PRIMARY KEY (target, check_id, object)
);
