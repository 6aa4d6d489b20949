-- $1 s a producer stays live after the newest of its shard, $2 s an end without goodbye or a loss is news.
WITH judged AS (
    SELECT last_seen, CASE WHEN fin THEN 'ended'
           WHEN last_seen < max(last_seen) FILTER (WHERE last_seen <= now()) OVER (PARTITION BY shard)
                            - make_interval(secs => $1) THEN 'unclean'
           ELSE 'live' END AS state
      FROM producers
)
SELECT count(*) FILTER (WHERE state = 'live') AS live, count(*) FILTER (WHERE state = 'ended') AS ended,
       count(*) FILTER (WHERE state = 'unclean') AS unclean,
       count(*) FILTER (WHERE state = 'unclean' AND last_seen >= now() - make_interval(secs => $2)) AS newly_unclean,
       extract(epoch FROM now() - max(last_seen))::float8 AS newest_age_s,
       bounded((SELECT coalesce(sum(committed_events), 0) FROM producers)
               + (SELECT coalesce(sum(committed_events), 0) FROM retired)) AS ever_committed_events,
       (SELECT count(*) FROM gaps WHERE closed_at IS NULL) AS open_gaps,
       (SELECT bounded(coalesce(sum(sealed_after - sealed_before), 0)) FROM gaps WHERE closed_at IS NULL) AS open_events,
       bounded((SELECT coalesce(sum(sealed_after - sealed_before), 0) FROM gaps WHERE closed_at IS NOT NULL)
               + (SELECT coalesce(sum(lost_events), 0) FROM retired)) AS lost_events,
       (SELECT bounded(coalesce(sum(sealed_after - sealed_before), 0)) FROM gaps
         WHERE closed_at >= now() - make_interval(secs => $2)) AS newly_lost_events
  FROM judged
