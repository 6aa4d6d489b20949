-- $1 signal, $2 status, $3 detail: what it said now.
INSERT INTO signals (signal, collected_at, status, detail) VALUES ($1, now(), $2, $3)
ON CONFLICT (signal) DO UPDATE SET collected_at = now(), status = excluded.status, detail = excluded.detail
