-- Compaction, roll-ups, retention and `forget` of one schema exclude each other; held until the session ends it.
SELECT pg_try_advisory_lock(hashtext(current_schema()), 3)
