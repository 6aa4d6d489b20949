-- $1 newest fence: lowers it and those that a check left up which failed or died before it was through
UPDATE fences SET lowered_at = now() WHERE fence_id <= $1 AND lowered_at IS NULL
