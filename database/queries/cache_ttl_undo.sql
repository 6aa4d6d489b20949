-- $1 class of keys, $2 JSON: why, and what was measured. The change that is in force is taken back.
UPDATE recommendations SET state = 'undone', last_seen = now(), evidence = evidence || $2::text::jsonb
 WHERE kind = 'cache_ttl' AND target = $1 AND state = 'applied'
