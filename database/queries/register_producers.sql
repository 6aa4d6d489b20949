-- $1 ids, $2 services, $3 shards
WITH wanted AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::smallint[]) AS u(producer_id, service, shard)
), made AS (
    INSERT INTO producers (producer_id, service, shard) SELECT * FROM wanted
    ON CONFLICT (producer_id) DO NOTHING
    RETURNING producer_no, producer_id, top_seq, first_seen
)
SELECT producer_no, producer_id, top_seq, extract(epoch FROM first_seen)::float8 AS first_seen_s FROM made
UNION ALL
SELECT p.producer_no, p.producer_id, p.top_seq, extract(epoch FROM p.first_seen)::float8
  FROM producers p JOIN wanted USING (producer_id)
