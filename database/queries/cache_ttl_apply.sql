-- $1 class of keys: the change that is proposed for it is made; the one before it is history.
UPDATE recommendations SET state = CASE state WHEN 'proposed' THEN 'applied' ELSE 'superseded' END, last_seen = now()
 WHERE kind = 'cache_ttl' AND target = $1 AND state IN ('proposed', 'applied')
