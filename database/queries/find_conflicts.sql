-- $1 producer numbers, $2 seqs, $3 checksums: places of those of these batches that were applied with another checksum.
SELECT asked.place
  FROM unnest($1::int[], $2::bigint[], $3::int[]) WITH ORDINALITY AS asked(producer_no, seq, checksum, place)
  JOIN (SELECT known.* FROM checksums AS c,
               unnest(c.producer_nos, c.seqs, c.checksums) AS known(producer_no, seq, checksum)
         WHERE c.producer_nos && $1) AS known
    ON known.producer_no = asked.producer_no AND known.seq = asked.seq AND known.checksum <> asked.checksum
