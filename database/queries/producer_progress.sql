-- $1 from, $2 to (exclusive): how far the producers came that were heard of since then, and their gaps in that time
-- (window before, window after, whether it is open).
SELECT p.producer_no, p.service, p.fin, p.watermark_s, extract(epoch FROM p.first_seen)::float8 AS first_s,
       extract(epoch FROM p.last_seen)::float8 AS last_s,
       extract(epoch FROM clock_timestamp() - p.last_seen)::float8 AS age_s,
       (SELECT coalesce(array_agg(ARRAY[g.window_before_s, g.window_after_s, (g.closed_at IS NULL)::int]), '{}') FROM gaps g
         WHERE g.producer_no = p.producer_no AND g.window_after_s >= extract(epoch FROM $1::timestamptz)
           AND g.window_before_s < extract(epoch FROM $2::timestamptz)) AS gaps
  FROM producers p WHERE p.last_seen >= $1 AND p.first_seen < $2
