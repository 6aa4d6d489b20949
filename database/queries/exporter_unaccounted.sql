-- $1 producer ids, $2 seqs: positions (from 1) of those that are neither accounted for, nor in a gap, nor parked.
SELECT w.position FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS w(producer_id, seq, position)
  LEFT JOIN producers p USING (producer_id)
 WHERE NOT coalesce(p.applied @> w.seq OR p.quarantined @> w.seq, false)
   AND NOT EXISTS (SELECT FROM gaps g WHERE g.producer_no = p.producer_no
                                        AND g.first_seq <= w.seq AND g.end_seq > w.seq)
   AND NOT EXISTS (SELECT FROM parked k WHERE k.producer_id = w.producer_id AND k.seq = w.seq)
