-- $1 fence
UPDATE fences SET lowered_at = now() WHERE fence_id = $1
