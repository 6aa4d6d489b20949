-- $1 s a producer stays live after the newest of its shard, $2 s after which a silent one is no news any more: the
-- window that all live producers have reached, and how long ago it began.
SELECT count(*) AS live, min(watermark_s) AS watermark_s,
       extract(epoch FROM clock_timestamp())::float8 - min(watermark_s) AS age_s,
       (SELECT extract(epoch FROM clock_timestamp() - max(seen_at))::float8 FROM aggregators) AS aggregator_age_s
  FROM (SELECT fin, watermark_s, last_seen, max(last_seen) OVER (PARTITION BY shard) AS newest FROM producers) p
 WHERE NOT fin AND watermark_s > 0 AND last_seen >= newest - make_interval(secs => $1)
   AND last_seen >= now() - make_interval(secs => $2)
