-- The pipeline's tables: identity, ledger, totals, parts, rollups, what was set aside, and who did what.
-- Every name is relative: the same file makes the real schema and the schema of one load-test run.
-- Forward only. Windows are half-open and named by their start; times are the database clock's.

CREATE TABLE state (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    generation bigint NOT NULL DEFAULT 1  -- grows when cached identities become invalid (forget, retire)
);
INSERT INTO state DEFAULT VALUES;

-- Identity -------------------------------------------------------------------------------------------------

CREATE TABLE metrics (
    metric_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    kind smallint NOT NULL,               -- contract.metric.Kind
    help text NOT NULL,
    unit text NOT NULL,
    merge text NOT NULL,                  -- contract.metric.Merge, gauges only
    live boolean NOT NULL,
    active int NOT NULL DEFAULT 0,        -- series that count against the budget
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE layouts (                    -- bucket bounds a histogram was declared with; 0 means none
    layout_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    metric_id int NOT NULL REFERENCES metrics,
    bounds float8[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    UNIQUE (metric_id, bounds)
);

CREATE TABLE series (
    series_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key_hash uuid NOT NULL UNIQUE,        -- blake2b-128 of the key: a long key would not fit an index
    metric_id int NOT NULL REFERENCES metrics,
    key text NOT NULL,                    -- canonical: name{a="x",b="y"}
    created_at timestamptz NOT NULL DEFAULT now(),
    active_at timestamptz NOT NULL DEFAULT now()  -- newest data, to the minute; drives budget and exposition
) WITH (fillfactor = 70);

-- Ledger ---------------------------------------------------------------------------------------------------

CREATE TABLE producers (
    producer_no int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    producer_id uuid NOT NULL UNIQUE,
    service text NOT NULL,
    shard smallint NOT NULL,
    applied int8multirange NOT NULL DEFAULT '{}',
    quarantined int8multirange NOT NULL DEFAULT '{}',
    top_seq bigint NOT NULL DEFAULT 0,            -- highest seq accounted for
    top_sealed bigint NOT NULL DEFAULT 0,         -- events in all batches up to it, as the producer counted
    accepted bigint NOT NULL DEFAULT 0,           -- the producer's own cumulative count
    dropped jsonb NOT NULL DEFAULT '{}',          -- the same by reason
    committed_events bigint NOT NULL DEFAULT 0,
    quarantined_events bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,         -- batches that arrived again
    displaced bigint NOT NULL DEFAULT 0,          -- batches booked to a younger window than their own: too late
    watermark_s bigint NOT NULL DEFAULT 0,        -- window of the batch at top_seq
    clock_offset_us bigint NOT NULL DEFAULT 0,
    clock_uncertainty_us bigint NOT NULL DEFAULT 0,
    fin boolean NOT NULL DEFAULT false,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE gaps (                       -- seqs nobody has seen, between seqs that are accounted for
    producer_no int NOT NULL REFERENCES producers ON DELETE CASCADE,
    first_seq bigint NOT NULL,
    end_seq bigint NOT NULL,              -- exclusive
    sealed_before bigint NOT NULL,        -- the producer's cumulative sealed events at both edges:
    sealed_after bigint NOT NULL,         -- their difference is what is missing
    window_before_s bigint NOT NULL,
    window_after_s bigint NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,                -- set: counted as lost
    PRIMARY KEY (producer_no, first_seq)
);

CREATE TABLE retired (                    -- producers long gone, summed; keeps every served counter from falling
    service text PRIMARY KEY,
    producers bigint NOT NULL DEFAULT 0,
    accepted bigint NOT NULL DEFAULT 0,
    dropped jsonb NOT NULL DEFAULT '{}',
    committed_events bigint NOT NULL DEFAULT 0,
    quarantined_events bigint NOT NULL DEFAULT 0,
    lost_events bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0
);

CREATE TABLE forgotten (                  -- series deleted on request: who, when and how many events
    forget_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    selector text NOT NULL,
    series int NOT NULL,
    events bigint NOT NULL,
    requested_by text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

-- Values ---------------------------------------------------------------------------------------------------

CREATE TABLE totals (                     -- a series since its birth; only the key is indexed, so updates stay HOT
    series_id int NOT NULL,
    layout_id int NOT NULL,
    shard smallint NOT NULL,
    n bigint NOT NULL,
    sum float8 NOT NULL,
    le bigint[],                          -- counts per bound, not cumulative, +Inf last; null without bounds
    PRIMARY KEY (series_id, layout_id, shard)
) WITH (fillfactor = 60);

CREATE TABLE gauges (                     -- newest value of each producer
    series_id int NOT NULL,
    producer_no int NOT NULL,
    value float8 NOT NULL,
    set_ms bigint NOT NULL,               -- Redis clock
    PRIMARY KEY (series_id, producer_no)
) WITH (fillfactor = 60);

CREATE TABLE parts (                      -- one row per series, window and commit; compacted into rollup_10s
    arrived timestamptz NOT NULL DEFAULT now(),
    window_start timestamptz NOT NULL,
    series_id int NOT NULL,
    producer_no int NOT NULL,             -- 0 unless a gauge
    n bigint NOT NULL,
    sum float8 NOT NULL,
    min float8,
    max float8,
    last float8,
    sketch bytea
) PARTITION BY RANGE (arrived);

CREATE TABLE rollup_10s (
    window_start timestamptz NOT NULL,
    series_id int NOT NULL,
    producer_no int NOT NULL,
    n bigint NOT NULL,
    sum float8 NOT NULL,
    min float8,
    max float8,
    last float8,
    sketch bytea,
    PRIMARY KEY (series_id, window_start, producer_no)  -- /api/rollups and replay --verify: one series over time
) PARTITION BY RANGE (window_start);

CREATE TABLE rollup_1m (LIKE rollup_10s INCLUDING ALL) PARTITION BY RANGE (window_start);
CREATE TABLE rollup_1h (LIKE rollup_10s INCLUDING ALL) PARTITION BY RANGE (window_start);

CREATE TABLE windows (                    -- revision > 0: changed after it was first rolled up
    level text NOT NULL,
    window_start timestamptz NOT NULL,
    revision int NOT NULL DEFAULT 0,
    rolled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (level, window_start)
);

CREATE TABLE dirty (                      -- append-only marks: this window must be rolled up again
    mark_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    level text NOT NULL,
    window_start timestamptz NOT NULL
);

CREATE TABLE archived (                   -- sums of partitions that retention dropped
    level text NOT NULL,
    series_id int NOT NULL,
    n bigint NOT NULL,
    sum float8 NOT NULL,
    PRIMARY KEY (level, series_id)
);

-- Set aside ------------------------------------------------------------------------------------------------

CREATE TABLE quarantine (
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard smallint NOT NULL,
    stream_id text NOT NULL,
    reason text NOT NULL,                 -- contract.reasons.Quarantined
    detail text NOT NULL,
    producer_id uuid,                     -- null where the envelope cannot be trusted
    seq bigint,
    events bigint,
    payload bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    redriven_at timestamptz
);
-- Serves quarantine_entry: an entry delivered again is kept once. A stream id alone is no identity.
CREATE UNIQUE INDEX quarantine_entry_key ON quarantine (shard, stream_id, reason, md5(payload));

CREATE TABLE parked (
    parked_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard smallint NOT NULL,
    stream_id text NOT NULL,
    reason text NOT NULL,                 -- contract.reasons.Parked
    version int NOT NULL,
    producer_id uuid NOT NULL,
    seq bigint NOT NULL,
    events bigint NOT NULL,
    payload bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (producer_id, seq)             -- a batch sent twice is parked once
);

CREATE TABLE tallies (                    -- counts that outlive their rows: payload_gone, quarantined:<reason>
    name text PRIMARY KEY,
    value bigint NOT NULL
);

-- Who did what ---------------------------------------------------------------------------------------------

CREATE TABLE commits (                    -- the exporter reads those it has not seen and fetches just their totals
    commit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT now(),
    consumer text NOT NULL,
    batches int NOT NULL,
    events bigint NOT NULL,
    series_ids int[] NOT NULL
);

CREATE TABLE aggregators (
    consumer text PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    facts jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE runs (                       -- one execution of a scheduled job; whoever inserts the slot owns it
    job text NOT NULL,
    scheduled_for timestamptz NOT NULL,
    consumer text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    outcome text,
    detail text,
    PRIMARY KEY (job, scheduled_for)
);

CREATE TABLE fences (                     -- while one is up, totals are being restored and /metrics answers 503
    fence_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reason text NOT NULL,
    raised_by text NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT now(),
    lowered_at timestamptz
);

CREATE TABLE load_runs (                  -- load-test runs; each has a schema of its own until it is purged
    run_id text PRIMARY KEY,
    schema_name text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    purged_at timestamptz,
    refused_events bigint NOT NULL DEFAULT 0
);
