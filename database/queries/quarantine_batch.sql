-- As quarantine_batch in the migrations; $15 the batch's checksum, remembered as those of applied batches are. A number
-- that is not this producer's is one of before a failover: SG001, as where there is no such row.
WITH done AS (
    SELECT quarantine_batch(
        $1::smallint, $2, $3, $4,
        (SELECT producer_no FROM producers WHERE producer_no = $5::int AND producer_id = $6::uuid),
        $6::uuid, $7::bigint, $8::bigint, $9::bigint, $10::bigint, $11::bigint, $12::bigint, $13::jsonb, $14::bytea
    ) AS fresh
), remembered AS (
    INSERT INTO checksums (producer_no, first_seq, checksums) SELECT $5, $7, ARRAY[$15::int] FROM done WHERE fresh
    ON CONFLICT DO NOTHING
)
SELECT fresh FROM done
