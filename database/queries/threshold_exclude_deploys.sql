-- $1 services, $2 from, $3 to, $4 actor, $5 until when what it wrote is forgotten: keeps deploys that are not kept yet.
WITH gone AS (
    DELETE FROM threshold_exclusions WHERE actor = $4 AND to_at < $5
)
INSERT INTO threshold_exclusions (service, from_at, to_at, reason, actor)
SELECT service, from_at, to_at, 'deploy', $4
  FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS u(service, from_at, to_at)
 WHERE NOT EXISTS (SELECT FROM threshold_exclusions e
                    WHERE e.service = u.service AND e.from_at <= u.from_at AND e.to_at >= u.to_at)
