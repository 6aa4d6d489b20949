-- One statement with complete parameters: see apply_fold in the migrations. $19: a checksum for each batch.
WITH already AS (
    SELECT producer_no, seq FROM apply_fold(
        $1, $2, $3::jsonb, $4::int[], $5::bigint[], $6::int[], $7::int[], $8::int[], $9::int[], $10::smallint[],
        $11::bigint[], $12::float8[], $13::bigint[], $14::int[], $15::int[], $16::float8[], $17::bigint[], $18::int[])
), remembered AS (
    INSERT INTO checksums (producer_nos, seqs, checksums)
    SELECT $4, $5, $19::int[] WHERE cardinality($5) > 0 AND NOT EXISTS (SELECT FROM already)
)
SELECT producer_no, seq FROM already
