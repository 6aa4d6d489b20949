-- $1 shard, $2 stream id, $3 reason, $4 detail, $5 producer id or null, $6 seq, $7 events, $8 payload
INSERT INTO quarantine (shard, stream_id, reason, detail, producer_id, seq, events, payload)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT DO NOTHING
