-- One statement with complete parameters: see apply_fold in the migrations. $1 is what generation.sql returned. Arrays
-- come as texts: asyncpg looks at each element of an array four times (0.45 us), a text of it is made and read in 0.1 us,
-- a zero taking three bytes.
WITH already AS (
    SELECT producer_no, seq FROM apply_fold(
        $1 - (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
        $2, $3::jsonb, $4::text::int[], $5::text::bigint[], $6::text::int[], $7::text::int[], $8::text::int[],
        $9::text::int[], $10::text::smallint[], $11::text::bigint[], $12::text::float8[], $13::text::bigint[],
        $14::text::int[], $15::text::int[], $16::text::float8[], $17::text::bigint[], $18::text::int[])
), remembered AS (
    INSERT INTO checksums (producer_no, first_seq, checksums)
    SELECT no, lo, checksums FROM jsonb_to_recordset($3::jsonb -> 'runs') AS run(no int, lo bigint, checksums int[])
     WHERE NOT EXISTS (SELECT FROM already)
    ON CONFLICT DO NOTHING
)
SELECT producer_no, seq FROM already
