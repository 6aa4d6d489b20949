-- The bytes go; the ledger keeps the events, and a tally the entries, so that no served counter falls.
WITH gone AS (
    DELETE FROM quarantine WHERE at < now() - interval '30 days' RETURNING reason
)
INSERT INTO tallies AS t (name, value)
SELECT 'quarantined:' || reason, count(*) FROM gone GROUP BY reason
ON CONFLICT (name) DO UPDATE SET value = t.value + excluded.value
