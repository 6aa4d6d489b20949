-- Commits take this lock shared before they check the generation; released at the end of the transaction.
SELECT pg_advisory_xact_lock(hashtext(current_schema()), 1)
