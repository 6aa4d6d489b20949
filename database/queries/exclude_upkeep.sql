-- Waits for the upkeep of this schema to end and keeps it away until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtext(current_schema()), 3)
