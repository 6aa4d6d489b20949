-- $1 cause, $2 entries
INSERT INTO losses AS l (cause, entries) VALUES ($1, $2)
ON CONFLICT (cause) DO UPDATE SET entries = l.entries + excluded.entries
