-- $1 schema: waits for its upkeep to end; held until the end of the transaction
SELECT pg_advisory_xact_lock(hashtext($1), 3)
