-- $1 kind, $2 targets that still stand: the others of this kind are no longer seen.
UPDATE recommendations SET state = 'gone' WHERE kind = $1 AND state = 'proposed' AND NOT target = ANY ($2::text[])
