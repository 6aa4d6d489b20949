-- $1 job: held by the session that runs it, so that no two run it at once
SELECT pg_try_advisory_lock(hashtext(current_schema() || '.jobs'), hashtext($1))
