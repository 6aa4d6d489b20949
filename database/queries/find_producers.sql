-- $1 ids
SELECT producer_no, producer_id, top_seq FROM producers WHERE producer_id = ANY ($1::uuid[])
