-- $1 threshold, $2 buckets, $3 warn, $4 critical, $5 method, $6 n, $7 medians, $8 mads, $9 pinned, $10 dropped,
-- $11 reason, $12 actor: set values, and write down those that differ from what was. Returns how many differ.
WITH given AS (
    SELECT * FROM unnest($2::int[], $3::float8[], $4::float8[], $6::int[], $7::float8[], $8::float8[])
        AS g (bucket, warn, critical, n, median, mad)),
old AS (SELECT v.* FROM threshold_values v JOIN given USING (bucket) WHERE v.threshold_id = $1 FOR UPDATE OF v),
written AS (
    INSERT INTO threshold_values AS v (threshold_id, bucket, warn, critical, method, n, median, mad, is_pinned)
    SELECT $1, bucket, warn, critical, $5, n, median, mad, $9 FROM given
    ON CONFLICT (threshold_id, bucket) DO UPDATE SET warn = excluded.warn, critical = excluded.critical,
        method = excluded.method, n = excluded.n, median = excluded.median, mad = excluded.mad,
        is_pinned = excluded.is_pinned, set_at = now()),
noted AS (
    INSERT INTO threshold_changes (threshold_id, bucket, old_warn, old_critical, new_warn, new_critical, method,
                                   old_method, n, dropped, mad, reason, actor)
    SELECT $1, bucket, o.warn, o.critical, g.warn, g.critical, $5, o.method, g.n, $10, g.mad, $11, $12
      FROM given g LEFT JOIN old o USING (bucket)
     WHERE (o.warn, o.critical, o.method, o.is_pinned) IS DISTINCT FROM (g.warn, g.critical, $5, $9)
    RETURNING 1)
SELECT count(*) FROM noted
