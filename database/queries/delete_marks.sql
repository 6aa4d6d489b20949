-- $1 exactly the marks that were read
DELETE FROM dirty WHERE mark_id = ANY ($1::bigint[])
