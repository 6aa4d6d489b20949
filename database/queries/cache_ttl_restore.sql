-- $1 class of keys whose newest change was taken back: the change before it is in force again.
UPDATE recommendations SET state = 'applied', last_seen = now()
 WHERE id = (SELECT id FROM recommendations WHERE kind = 'cache_ttl' AND target = $1 AND state = 'superseded'
              ORDER BY last_seen DESC, id DESC LIMIT 1)
