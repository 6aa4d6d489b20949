-- $1 how long a producer is kept after it was last heard of (seconds)
SELECT count(*) FROM producers p WHERE last_seen < now() - make_interval(secs => $1::float8)
   AND NOT EXISTS (SELECT FROM parked WHERE parked.producer_id = p.producer_id)
