-- Main schema only: the schedule: which jobs there are, and every attempt at a run of theirs.

ALTER TABLE runs
    ALTER COLUMN consumer DROP NOT NULL,      -- null: asked for or handed back, and not begun
    ALTER COLUMN started_at DROP NOT NULL,
    ALTER COLUMN started_at DROP DEFAULT,     -- of the newest attempt
    ADD COLUMN attempt int NOT NULL DEFAULT 0,  -- 0: not begun
    ADD COLUMN crashes int NOT NULL DEFAULT 0,  -- attempts whose beat stopped
    ADD COLUMN beat_at timestamptz,
    ADD COLUMN trigger text NOT NULL DEFAULT 'schedule' CHECK (trigger IN ('schedule', 'cli', 'api')),
    ADD COLUMN requested_by text,
    ADD COLUMN attempts jsonb NOT NULL DEFAULT '[]',  -- those that ended, with consumer, times and how
    ADD COLUMN facts jsonb;
CREATE INDEX runs_open ON runs (job, scheduled_for) WHERE finished_at IS NULL;  -- open_runs, take_run

CREATE TABLE jobs (                           -- what aggregators have in their schedules
    job text PRIMARY KEY,
    title text NOT NULL,
    every_s float8 NOT NULL,
    judges_data boolean NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_success_at timestamptz
);

CREATE TABLE job_tallies (                    -- runs that ended; outlives their rows, so that the counts never fall
    job text NOT NULL,
    outcome text NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (job, outcome)
);

-- However a run ends, it is counted in the same transaction.
CREATE FUNCTION tally_run() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_tallies (job, outcome, n) VALUES (NEW.job, NEW.outcome, 1)
    ON CONFLICT (job, outcome) DO UPDATE SET n = job_tallies.n + 1;
    IF NEW.outcome IN ('done', 'insufficient_data') THEN
        UPDATE jobs SET last_success_at = greatest(last_success_at, NEW.finished_at) WHERE job = NEW.job;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER runs_end AFTER UPDATE ON runs FOR EACH ROW
    WHEN (OLD.outcome IS NULL AND NEW.outcome IS NOT NULL) EXECUTE FUNCTION tally_run();
CREATE TRIGGER runs_refused AFTER INSERT ON runs FOR EACH ROW
    WHEN (NEW.outcome IS NOT NULL) EXECUTE FUNCTION tally_run();
