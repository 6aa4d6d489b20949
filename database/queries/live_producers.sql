-- $1 s a producer stays live after the newest of its shard: how many of each service are live.
SELECT service, count(*) FILTER (WHERE NOT fin AND (last_seen < newest - make_interval(secs => $1)) IS NOT TRUE)::int
                AS live
  FROM (SELECT service, fin, last_seen, max(last_seen) FILTER (WHERE last_seen <= now()) OVER (PARTITION BY shard)
               AS newest FROM producers) p
 GROUP BY service
