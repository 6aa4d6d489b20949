-- $1 seconds a producer stays live after the newest of its shard, $2 at most so many: each producer's account.
SELECT p.producer_no, replace(p.producer_id::text, '-', '') AS producer_id, p.service, p.shard,
       CASE WHEN p.fin THEN 'ended'
            WHEN p.last_seen < max(p.last_seen) FILTER (WHERE p.last_seen <= now()) OVER (PARTITION BY p.shard)
                               - make_interval(secs => $1) THEN 'unclean'
            ELSE 'live' END AS state,
       p.accepted, p.committed_events AS committed, p.dropped::text AS dropped, p.quarantined_events AS quarantined,
       coalesce(g.lost, 0)::bigint AS lost, coalesce(g.open, 0)::bigint AS in_gaps, p.duplicates, p.displaced, p.top_seq,
       extract(epoch FROM p.first_seen)::float8 AS first_seen_s, extract(epoch FROM p.last_seen)::float8 AS last_seen_s,
       p.clock_offset_us, p.clock_uncertainty_us
  FROM producers p
  LEFT JOIN (SELECT producer_no, sum(sealed_after - sealed_before) FILTER (WHERE closed_at IS NOT NULL) AS lost,
                    sum(sealed_after - sealed_before) FILTER (WHERE closed_at IS NULL) AS open
               FROM gaps GROUP BY producer_no) g USING (producer_no)
 ORDER BY p.last_seen DESC, p.producer_no LIMIT $2
