-- $1 target, $2 check, $3 fingerprint, $4 tier, $5 sql, $6 rollback, $7 before: note a change before it is made.
INSERT INTO applied_actions (target, check_id, fingerprint, tier, sql, rollback, before)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb) RETURNING action_id
