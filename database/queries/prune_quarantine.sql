-- The bytes go; the ledger keeps the counts.
DELETE FROM quarantine WHERE at < now() - interval '30 days'
