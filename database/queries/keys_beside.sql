-- $1 metric, $2 a key that nothing was found of, $3 at most so many: keys of the metric, none where $2 is one of them.
SELECT s.key FROM series s JOIN metrics m USING (metric_id)
 WHERE m.name = $1 AND NOT EXISTS (SELECT FROM series WHERE metric_id = s.metric_id AND key = $2) ORDER BY s.key LIMIT $3
