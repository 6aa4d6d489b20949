-- Aggregators and the age of their heartbeats.
SELECT consumer, extract(epoch FROM now() - seen_at)::float8 AS age_s, facts::text AS facts
  FROM aggregators ORDER BY consumer
