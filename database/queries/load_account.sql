-- $1 service: what the ledger says of the producers of one load test, summed.
SELECT count(*) AS producers, count(*) FILTER (WHERE fin) AS ended,
       coalesce(sum(accepted), 0)::bigint AS accepted,
       coalesce(sum(committed_events), 0)::bigint AS committed,
       coalesce(sum(quarantined_events), 0)::bigint AS quarantined,
       coalesce(sum(duplicates), 0)::bigint AS duplicates,
       coalesce(sum((SELECT sum(value::bigint) FROM jsonb_each_text(dropped))), 0)::bigint AS dropped,
       coalesce(sum((SELECT sum(g.sealed_after - g.sealed_before) FROM gaps g
                      WHERE g.producer_no = p.producer_no AND g.closed_at IS NOT NULL)), 0)::bigint AS lost
  FROM producers p WHERE service = $1
