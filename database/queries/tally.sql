-- $1 name, $2 how many more
INSERT INTO tallies AS t (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = t.value + excluded.value
