-- $1 producer numbers, $2 seqs, $3 checksums: places of those accounted for under another one.
SELECT asked.place
  FROM unnest($1::int[], $2::bigint[], $3::int[]) WITH ORDINALITY AS asked(producer_no, seq, checksum, place),
       LATERAL (SELECT c.checksums[(asked.seq - c.first_seq + 1)::int] AS checksum FROM checksums AS c
                 WHERE c.producer_no = asked.producer_no AND c.first_seq <= asked.seq
                 ORDER BY c.first_seq DESC LIMIT 1) AS known
 WHERE known.checksum <> asked.checksum
