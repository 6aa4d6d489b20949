-- $1 reason, $2 raised by
INSERT INTO fences (reason, raised_by) VALUES ($1, $2) RETURNING fence_id
