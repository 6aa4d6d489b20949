-- $1 hashes
SELECT series_id, key_hash FROM series WHERE key_hash = ANY ($1::uuid[])
