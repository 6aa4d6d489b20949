-- $1 classes whose lifetime Redis now holds, or no longer holds: what was given back is no longer ours.
UPDATE cache_lifetimes SET published_at = coalesce(published_at, now()), is_ours = applied_s IS NOT NULL
 WHERE key_class = ANY ($1::text[])
