-- $1 metric, $2 since, $3 the service that emits it, '' for any: times that teach nothing.
SELECT extract(epoch FROM from_at)::float8 AS from_s, extract(epoch FROM to_at)::float8 AS to_s
  FROM threshold_exclusions
 WHERE (metric IS NULL OR metric = $1) AND (service IS NULL OR $3 = '' OR service = $3) AND to_at > $2
