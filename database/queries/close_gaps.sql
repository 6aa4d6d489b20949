-- $1 replay window, $2 how long a producer may be silent (seconds)
UPDATE gaps g SET closed_at = now() FROM producers p
 WHERE p.producer_no = g.producer_no AND g.closed_at IS NULL
   AND (g.opened_at < now() - make_interval(secs => $1::float8)
        OR (greatest(p.last_seen, g.opened_at) < now() - make_interval(secs => $2::float8)))
