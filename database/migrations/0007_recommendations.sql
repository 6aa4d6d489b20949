-- Main schema only: what PerformanceOptimizer and the tuning of cache lifetimes recommend, and what each signal said last.

CREATE TABLE recommendations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,                   -- the signal, or cache_ttl
    target text NOT NULL,                 -- what it is about: a route, a service, a server, a class of keys
    current text,                         -- with its unit; null: not known
    proposed text NOT NULL,
    expected_effect text NOT NULL,
    evidence jsonb NOT NULL,              -- numbers, units in their names
    confidence text NOT NULL,             -- low, medium, high
    state text NOT NULL DEFAULT 'proposed'
        CHECK (state IN ('proposed', 'applied', 'undone', 'superseded', 'gone')),
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL
);
CREATE UNIQUE INDEX recommendations_standing ON recommendations (kind, target) WHERE state = 'proposed';
CREATE INDEX recommendations_last_seen ON recommendations (last_seen);  -- recommendation_forget

CREATE TABLE signals (                    -- newest answer of each signal
    signal text PRIMARY KEY,
    collected_at timestamptz NOT NULL,
    status text NOT NULL CHECK (status IN ('ok', 'warn', 'insufficient_data', 'error')),
    detail text NOT NULL
);

CREATE TABLE signal_counters (            -- what growing counters were at the last collection, to compare with
    source text PRIMARY KEY,
    at timestamptz NOT NULL,
    epoch text NOT NULL,                  -- another one: the server has restarted and counters cannot be compared
    counters jsonb NOT NULL
);
