-- $1 seconds an aggregator's heartbeat stays current: the pipeline's own numbers in one row.
SELECT coalesce((SELECT jsonb_object_agg(reason, n) FROM
                 (SELECT reason, sum(n) AS n FROM
                  (SELECT reason, count(*) AS n FROM quarantine GROUP BY reason
                   UNION ALL
                   SELECT split_part(name, ':', 2), value FROM tallies WHERE name LIKE 'quarantined:%') e
                  GROUP BY reason) q), '{}')::text AS quarantined,
       coalesce((SELECT value FROM tallies WHERE name = 'payload_gone'), 0) AS payload_gone,
       coalesce((SELECT jsonb_object_agg(reason, n) FROM
                 (SELECT reason, count(*) AS n FROM parked GROUP BY reason) k), '{}')::text AS parked,
       coalesce((SELECT jsonb_object_agg(name, active) FROM metrics), '{}')::text AS series,
       (SELECT count(*) FROM aggregators WHERE seen_at >= now() - make_interval(secs => $1)) AS aggregators
