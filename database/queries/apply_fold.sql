-- One statement with complete parameters: see apply_fold in the migrations.
WITH already AS (
    SELECT producer_no, seq FROM apply_fold(
        $1, $2, $3::jsonb, $4::int[], $5::bigint[], $6::int[], $7::int[], $8::int[], $9::int[], $10::smallint[],
        $11::bigint[], $12::float8[], $13::bigint[], $14::int[], $15::int[], $16::float8[], $17::bigint[], $18::int[])
), remembered AS (
    INSERT INTO checksums (producer_no, first_seq, checksums)
    SELECT no, lo, checksums FROM jsonb_to_recordset($3::jsonb -> 'runs') AS run(no int, lo bigint, checksums int[])
     WHERE NOT EXISTS (SELECT FROM already)
    ON CONFLICT DO NOTHING
)
SELECT producer_no, seq FROM already
