-- $1 classes whose changed lifetime is in force: theirs is not old, however long ago it was changed.
UPDATE recommendations SET last_seen = now() WHERE kind = 'cache_ttl' AND state = 'applied' AND target = ANY ($1::text[])
