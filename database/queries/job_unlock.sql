-- $1 job
SELECT pg_advisory_unlock(hashtext(current_schema() || '.jobs'), hashtext($1))
