SELECT producer_no, first_seq, end_seq, sealed_before, sealed_after, closed_at IS NOT NULL AS closed FROM gaps
