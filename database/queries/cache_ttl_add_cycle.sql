-- $1 slot, $2 outcome, $3 detail, $4 facts: fails when the slot has been judged already.
INSERT INTO cache_ttl_cycles (slot, outcome, detail, facts) VALUES ($1, $2, $3, $4::text::jsonb)
