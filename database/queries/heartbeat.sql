-- $1 consumer, $2 facts; the row that tells how far a replica is behind is touched in the same commit.
WITH beat AS (UPDATE heartbeats SET at = clock_timestamp())
INSERT INTO aggregators (consumer, facts) VALUES ($1, $2::jsonb)
ON CONFLICT (consumer) DO UPDATE SET seen_at = now(), facts = excluded.facts
