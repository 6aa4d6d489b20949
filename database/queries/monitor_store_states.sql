-- $1 names, $2 statuses, $3 since: what changed.
INSERT INTO component_states AS c (name, status, since)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[]) ORDER BY 1
ON CONFLICT (name) DO UPDATE SET status = excluded.status, since = excluded.since WHERE c.status <> excluded.status
