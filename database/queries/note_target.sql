-- $1 target, $2 epoch (null: it did not answer), $3 age of its statistics in seconds, $4 facts.
INSERT INTO optimizer_targets AS t (target, epoch, stats_age_s, facts) VALUES ($1, coalesce($2, ''), $3, $4::text::jsonb)
ON CONFLICT (target) DO UPDATE SET
    observed_since = CASE WHEN excluded.epoch IN ('', t.epoch) THEN t.observed_since ELSE now() END,
    epoch = CASE WHEN excluded.epoch = '' THEN t.epoch ELSE excluded.epoch END,
    seen_at = CASE WHEN excluded.epoch = '' THEN t.seen_at ELSE now() END,
    stats_age_s = coalesce(excluded.stats_age_s, t.stats_age_s),
    facts = excluded.facts
