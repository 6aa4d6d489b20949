-- The newest commit there is (the newest are never pruned) and when it was made; 0 and null before the first.
SELECT coalesce(max(commit_id), 0) AS commit_id, extract(epoch FROM max(at))::float8 AS at_s
  FROM (SELECT commit_id, at FROM commits ORDER BY commit_id DESC LIMIT 1) AS newest
