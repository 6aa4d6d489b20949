-- Admissions of one schema run one at a time; released at the end of the transaction.
SELECT pg_advisory_xact_lock(hashtext(current_schema()), 2)
