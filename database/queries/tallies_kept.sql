-- What is in no stream, as a failover would lose it.
SELECT 'job/' || job || '/' || outcome AS name, n FROM job_tallies
UNION ALL
SELECT name, value FROM tallies WHERE name = 'payload_gone'
