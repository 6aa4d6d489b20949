-- $1 ids
SELECT producer_no, producer_id, top_seq, extract(epoch FROM first_seen)::float8 AS first_seen_s
  FROM producers WHERE producer_id = ANY ($1::uuid[])
