-- Main schema only: attempts whose process died, counted as soon as somebody takes the run over: beside the outcomes
-- of runs, though no run ends so.

CREATE FUNCTION tally_crash() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_tallies (job, outcome, n) VALUES (NEW.job, 'crashed', NEW.crashes - OLD.crashes)
    ON CONFLICT (job, outcome) DO UPDATE SET n = job_tallies.n + excluded.n;
    RETURN NULL;
END $$;
CREATE TRIGGER runs_crash AFTER UPDATE ON runs FOR EACH ROW
    WHEN (NEW.crashes > OLD.crashes) EXECUTE FUNCTION tally_crash();
