-- $1 consumer, $2 facts
INSERT INTO aggregators (consumer, facts) VALUES ($1, $2::jsonb)
ON CONFLICT (consumer) DO UPDATE SET seen_at = now(), facts = excluded.facts
