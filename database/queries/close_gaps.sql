-- $1 replay window, $2 how long a producer may be silent (seconds). A batch that is parked is not lost.
UPDATE gaps g SET closed_at = now() FROM producers p
 WHERE p.producer_no = g.producer_no AND g.closed_at IS NULL
   AND (g.opened_at < now() - make_interval(secs => $1::float8)
        OR (greatest(p.last_seen, g.opened_at) < now() - make_interval(secs => $2::float8)))
   AND NOT EXISTS (SELECT FROM parked k
                    WHERE k.producer_id = p.producer_id AND k.seq >= g.first_seq AND k.seq < g.end_seq)
