-- $1 service: which seqs of each producer are accounted for.
SELECT producer_id, applied + quarantined AS done FROM producers WHERE service = $1
