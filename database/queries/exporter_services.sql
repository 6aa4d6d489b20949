-- $1 seconds a producer stays live after the newest of its shard: completeness per service, each term from its source.
-- `parked` is above its producer's top: not in `accepted` yet, and in no gap.
-- What was heard of after now was heard of before the clock was set back: it makes nobody look silent.
WITH judged AS (
    SELECT p.*, coalesce(g.lost, 0) AS lost, coalesce(g.open, 0) AS open,
           CASE WHEN p.fin THEN 'ended'
                WHEN p.last_seen < max(p.last_seen) FILTER (WHERE p.last_seen <= now()) OVER (PARTITION BY p.shard)
                                   - make_interval(secs => $1) THEN 'unclean'
                ELSE 'live' END AS state
      FROM producers p
      LEFT JOIN (SELECT producer_no, sum(sealed_after - sealed_before) FILTER (WHERE closed_at IS NOT NULL) AS lost,
                        sum(sealed_after - sealed_before) FILTER (WHERE closed_at IS NULL) AS open
                   FROM gaps GROUP BY producer_no) g USING (producer_no)
), summed AS (
    SELECT service, sum(accepted) AS accepted, sum(committed_events) AS committed,
           sum(quarantined_events) AS quarantined, sum(lost) AS lost, sum(open) AS open, 0 AS parked,
           sum(duplicates) AS duplicates, sum(displaced) AS displaced, count(*) FILTER (WHERE state = 'live') AS live,
           count(*) FILTER (WHERE state = 'ended') AS ended, count(*) FILTER (WHERE state = 'unclean') AS unclean,
           max(last_seen) AS last_seen
      FROM judged GROUP BY service
    UNION ALL
    SELECT service, accepted, committed_events, quarantined_events, lost_events, 0, 0, duplicates, displaced, 0, 0,
           0, NULL
      FROM retired
    UNION ALL
    SELECT coalesce(p.service, 'unknown'), 0, 0, 0, 0, 0, k.events, 0, 0, 0, 0, 0, NULL
      FROM parked k LEFT JOIN producers p USING (producer_id) WHERE p.top_seq IS NULL OR k.seq > p.top_seq
), reasons AS (
    SELECT service, key, sum(value::bigint) AS n
      FROM (SELECT service, dropped FROM producers UNION ALL SELECT service, dropped FROM retired) d,
           jsonb_each_text(d.dropped)
     GROUP BY service, key
)
SELECT service, bounded(sum(accepted)) AS accepted, bounded(sum(committed)) AS committed,
       bounded(sum(quarantined)) AS quarantined, bounded(sum(lost)) AS lost, bounded(sum(open)) AS open,
       bounded(sum(parked)) AS parked, bounded(sum(duplicates)) AS duplicates, bounded(sum(displaced)) AS displaced, sum(live)::bigint AS live,
       sum(ended)::bigint AS ended, sum(unclean)::bigint AS unclean, extract(epoch FROM max(last_seen))::float8 AS last_seen_s,
       coalesce((SELECT jsonb_object_agg(r.key, r.n) FROM reasons r WHERE r.service = s.service), '{}')::text AS dropped
  FROM summed s GROUP BY service ORDER BY service
