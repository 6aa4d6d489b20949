-- $1 kind, $2 targets that still stand, $3 targets judged (NULL: all): what is no longer seen, or not judged for long.
UPDATE recommendations SET state = 'gone'
 WHERE kind = $1 AND state = 'proposed' AND NOT target = ANY ($2::text[])
   AND ($3::text[] IS NULL OR target = ANY ($3) OR last_seen < now() - interval '14 days')
