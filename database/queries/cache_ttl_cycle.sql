-- $1 slot: how its cycle was judged.
SELECT outcome, detail, facts::text AS facts FROM cache_ttl_cycles WHERE slot = $1
