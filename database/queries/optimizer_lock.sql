-- $1 class of advisory locks: one optimizer at a time; false if another one is at work. Freed with the session.
SELECT pg_try_advisory_lock($1, 1)
