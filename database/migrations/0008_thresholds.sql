-- Main schema only: alert thresholds: what is calibrated, its value per bucket, and every change.

CREATE TABLE thresholds (                 -- one side of one metric, of one route where it is divided by route
    threshold_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    metric text NOT NULL,
    route text NOT NULL DEFAULT '',       -- '': not divided
    side text NOT NULL CHECK (side IN ('high', 'low')),
    source jsonb NOT NULL,                -- how a sample is read: database.thresholds.Source
    frozen text,                          -- why the newest calibration changed nothing; null: it was free to
    is_retired boolean NOT NULL DEFAULT false,  -- no longer defined
    calibrated_at timestamptz,            -- newest run that judged it
    UNIQUE (metric, route, side)
);

CREATE TABLE threshold_values (           -- bucket: hour of the day, UTC, and 24 more on Saturday and Sunday
    threshold_id int NOT NULL REFERENCES thresholds ON DELETE CASCADE,
    bucket smallint NOT NULL CHECK (bucket BETWEEN 0 AND 47),
    warn float8 NOT NULL,
    critical float8 NOT NULL,
    method text NOT NULL,                 -- static, global, seasonal, manual
    n int NOT NULL,
    median float8,
    mad float8,
    is_pinned boolean NOT NULL DEFAULT false,
    set_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (threshold_id, bucket)
);

CREATE TABLE threshold_changes (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    threshold_id int NOT NULL REFERENCES thresholds ON DELETE CASCADE,
    bucket smallint NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    old_warn float8,                      -- null: there was none
    old_critical float8,
    new_warn float8 NOT NULL,
    new_critical float8 NOT NULL,
    method text NOT NULL,
    old_method text,
    n int NOT NULL,
    dropped int NOT NULL,
    mad float8,
    reason text NOT NULL,                 -- recalibrated, pinned, reverted
    actor text NOT NULL
);
CREATE INDEX threshold_changes_newest ON threshold_changes (threshold_id, bucket, change_id);  -- threshold_revert

CREATE TABLE threshold_medians (          -- of all buckets, a row per accepted run: a level shift shows against them
    threshold_id int NOT NULL REFERENCES thresholds ON DELETE CASCADE,
    at timestamptz NOT NULL,
    median float8 NOT NULL,
    PRIMARY KEY (threshold_id, at)
);

CREATE TABLE threshold_exclusions (       -- times whose samples teach nothing: incidents, silences, load tests
    exclusion_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    metric text,                          -- null: every metric
    from_at timestamptz NOT NULL,
    to_at timestamptz NOT NULL CHECK (to_at > from_at),
    reason text NOT NULL,
    actor text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
