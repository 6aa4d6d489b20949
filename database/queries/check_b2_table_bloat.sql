-- $1 smallest size (bytes), $2 lowest share: tables by the pages that rows of their average width would need, after
-- ioguix's estimate; alignment between columns is not known, so a share is right to about 0.1.
-- Rows without readable statistics have estimated_bytes NULL.
WITH free AS MATERIALIZED (  -- what an ACCESS EXCLUSIVE lock hides is skipped, not waited for
    SELECT c.oid, c.relname, c.relnamespace, c.reltuples::float8, c.relpages::float8, c.relnatts,
           coalesce((SELECT option_value FROM pg_options_to_table(c.reloptions)
                      WHERE option_name = 'fillfactor')::float8, 100) AS fillfactor
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.reltuples > 0
       AND c.relpages * current_setting('block_size')::float8 >= $1::float8
       AND n.nspname NOT IN ('pg_catalog', 'information_schema')
       AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock'
                          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
),
widths AS (
    SELECT f.*, n.nspname, column_stats.*, current_setting('block_size')::float8 AS block
      FROM free f JOIN pg_namespace n ON n.oid = f.relnamespace
      CROSS JOIN LATERAL (
          SELECT sum((1 - s.null_frac) * s.avg_width) AS data_bytes, bool_or(s.null_frac > 0) AS has_nulls,
                 count(*) FILTER (WHERE s.attname IS NULL) AS unknown_columns
            FROM pg_attribute a
            LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = f.relname
                                AND s.attname = a.attname AND NOT s.inherited
           WHERE a.attrelid = f.oid AND a.attnum > 0 AND NOT a.attisdropped
      ) AS column_stats
),
sized AS (
    SELECT w.*, CASE WHEN unknown_columns = 0 THEN  -- line pointer 4, header 23, null bitmap, both parts aligned to 8
               4 + 8 * ceil((23 + CASE WHEN has_nulls THEN ceil(relnatts / 8.0) ELSE 0 END) / 8) + 8 * ceil(data_bytes / 8)
           END AS row_bytes
      FROM widths w
),
estimated AS (
    SELECT s.*, relpages * block AS size_bytes,
           CASE WHEN row_bytes IS NOT NULL THEN
               ceil(reltuples / greatest(floor((block - 24) * fillfactor / 100 / row_bytes), 1)) * block
           END AS estimated_bytes
      FROM sized s
)
SELECT format('%I.%I', e.nspname, e.relname) AS name,
       (SELECT format('%I.%I', n.nspname, r.relname) FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace
         WHERE r.oid = coalesce(pg_partition_root(e.oid), e.oid)) AS root,
       size_bytes, estimated_bytes, reltuples AS live_rows, fillfactor
  FROM estimated e
 WHERE estimated_bytes IS NULL OR size_bytes - estimated_bytes > $2::float8 * size_bytes
 ORDER BY size_bytes - coalesce(estimated_bytes, size_bytes) DESC
 LIMIT 200
