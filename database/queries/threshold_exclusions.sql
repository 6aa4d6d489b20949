-- $1 metric, $2 since: times that teach nothing: what a person excluded, and 15 minutes around producers' starts.
SELECT extract(epoch FROM from_at)::float8 AS from_s, extract(epoch FROM to_at)::float8 AS to_s
  FROM threshold_exclusions WHERE (metric IS NULL OR metric = $1) AND to_at > $2
UNION ALL
SELECT extract(epoch FROM first_seen)::float8 - 900, extract(epoch FROM first_seen)::float8 + 900
  FROM producers WHERE first_seen > $2
