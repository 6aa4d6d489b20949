-- $1 version, $2 reason, $3 parked_id to go on from, $4 at most so many
SELECT parked_id, shard, stream_id, payload FROM parked
 WHERE version = $1 AND reason = $2 AND parked_id > $3 ORDER BY parked_id LIMIT $4
