-- Producers that are not retired: since when and until when each was heard of.
SELECT service, extract(epoch FROM first_seen)::float8 AS began_s, extract(epoch FROM last_seen)::float8 AS seen_s
  FROM producers
