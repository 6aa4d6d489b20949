-- $1 shard, $2 stream id, $3 reason, $4 version, $5 producer id, $6 seq, $7 events, $8 payload. Returns nothing where another content is parked under this seq.
INSERT INTO parked (shard, stream_id, reason, version, producer_id, seq, events, payload)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (producer_id, seq) DO UPDATE SET reason = excluded.reason WHERE parked.payload = excluded.payload
RETURNING true
