-- $1 metric or null for all, $2 from, $3 to, $4 reason, $5 actor: samples in between teach nothing.
INSERT INTO threshold_exclusions (metric, from_at, to_at, reason, actor) VALUES ($1, $2, $3, $4, $5)
