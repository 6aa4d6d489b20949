-- $1 metric_id, $2 hashes, $3 keys. The overflow series may exist already; then it is only found.
WITH added AS (
    INSERT INTO series (metric_id, key_hash, key)
    SELECT $1, h, k FROM unnest($2::uuid[], $3::text[]) AS u(h, k)
    ON CONFLICT (key_hash) DO NOTHING
    RETURNING series_id, key
), counted AS (
    UPDATE metrics SET active = active + (SELECT count(*) FROM added) WHERE metric_id = $1
)
SELECT series_id, key FROM added
UNION ALL
SELECT s.series_id, s.key FROM series s WHERE s.key_hash = ANY ($2::uuid[])
