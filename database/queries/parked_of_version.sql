-- $1 version, $2 reason
SELECT parked_id, shard, stream_id, payload FROM parked WHERE version = $1 AND reason = $2 ORDER BY parked_id LIMIT 1000
