-- $1 seconds back: events, batches and commits per 5 s, oldest first, the newest slot unfinished; and the database's time.
SELECT extract(epoch FROM date_bin('5 s', at, 'epoch'))::bigint AS start_s, sum(events)::bigint AS events,
       sum(batches)::bigint AS batches, count(*) AS commits, extract(epoch FROM now())::float8 AS now_s
  FROM commits WHERE at > now() - make_interval(secs => $1)
 GROUP BY 1 ORDER BY 1
