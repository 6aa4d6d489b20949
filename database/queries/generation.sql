-- The generation that cached numbers belong to: it is another one on a server that was started anew or took over, for
-- that may lack the newest numbers and give them to others.
SELECT generation + (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS generation FROM state
