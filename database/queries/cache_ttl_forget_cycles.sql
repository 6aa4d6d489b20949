-- Cycles that no run can ask for again.
DELETE FROM cache_ttl_cycles WHERE ended_at < now() - interval '90 days'
