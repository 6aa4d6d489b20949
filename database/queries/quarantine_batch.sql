SELECT quarantine_batch($1::smallint, $2, $3, $4, $5::int, $6::uuid, $7::bigint, $8::bigint, $9::bigint,
                        $10::bigint, $11::bigint, $12::bigint, $13::jsonb, $14::bytea)
