-- $1 fewest pages, $2 lowest share: B-tree indexes by the pages that their entries would need if they were built anew,
-- equal entries stored once where PostgreSQL does so. estimated_bytes NULL: no readable statistics.
WITH free AS MATERIALIZED (  -- what an ACCESS EXCLUSIVE lock hides is skipped, not waited for
    SELECT i.indexrelid, i.indrelid, i.indkey, i.indclass, i.indisunique, i.indnatts, i.indnkeyatts,
           c.relname AS index_name, t.relname AS table_name, n.nspname,
           c.reltuples::float8, c.relpages::float8,
           coalesce((SELECT option_value FROM pg_options_to_table(c.reloptions)
                      WHERE option_name = 'fillfactor')::float8, 90) AS fillfactor,
           coalesce((SELECT option_value FROM pg_options_to_table(c.reloptions)
                      WHERE option_name = 'deduplicate_items')::boolean, true) AS deduplicates
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i' AND c.relpersistence <> 't'
      JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree'
      JOIN pg_class t ON t.oid = i.indrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE i.indisvalid AND c.relpages >= $1::float8 AND c.reltuples > 0
       AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
       AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation IN (i.indexrelid, i.indrelid)
                          AND l.mode = 'AccessExclusiveLock'
                          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
),
widths AS (
    SELECT f.*, column_stats.*, current_setting('block_size')::float8 AS block
      FROM free f
      CROSS JOIN LATERAL (
          SELECT sum((1 - s.null_frac) * s.avg_width) AS data_bytes, bool_or(s.null_frac > 0) AS has_nulls,
                 bool_or(s.attname IS NULL) AS is_unknown,
                 sum(ln(greatest(CASE WHEN s.n_distinct < 0 THEN -s.n_distinct * f.reltuples ELSE s.n_distinct END, 1)))
                     AS ln_distinct,
                 bool_and(EXISTS (SELECT FROM pg_opclass o JOIN pg_amproc p ON p.amprocfamily = o.opcfamily
                                      AND p.amproclefttype = o.opcintype AND p.amprocnum = 4  -- equalimage
                                   WHERE o.oid = f.indclass[a.attnum - 1])) AS may_deduplicate
            FROM pg_attribute a
            LEFT JOIN pg_attribute c ON c.attrelid = f.indrelid AND c.attnum = f.indkey[a.attnum - 1] AND c.attnum > 0
            LEFT JOIN pg_stats s ON s.schemaname = f.nspname AND NOT s.inherited
                 AND s.tablename = CASE WHEN c.attnum IS NULL THEN f.index_name ELSE f.table_name END
                 AND s.attname = coalesce(c.attname, a.attname)
           WHERE a.attrelid = f.indexrelid
      ) AS column_stats
),
entries AS (
    SELECT w.*, CASE WHEN is_unknown THEN NULL ELSE 8 + CASE WHEN has_nulls THEN 8 ELSE 0 END + 8 * ceil(data_bytes / 8) END
               AS entry_bytes,
           greatest(reltuples / exp(least(ln_distinct, ln(reltuples))), 1) AS rows_per_key,
           deduplicates AND may_deduplicate AND NOT indisunique AND indnatts = indnkeyatts AS has_postings
      FROM widths w
),
leaves AS (  -- a posting list ends at a sixth of a page, about 1350 bytes; a row takes 6 bytes of it
    SELECT e.*, CASE WHEN has_postings AND rows_per_key > 1.5
               THEN (reltuples / rows_per_key)
                    * (ceil(rows_per_key / floor((1350 - entry_bytes) / 6)) * (4 + entry_bytes) + 6 * rows_per_key)
               ELSE reltuples * (4 + entry_bytes) END AS leaf_bytes
      FROM entries e
),
estimated AS (  -- one meta page; inner pages are about a hundredth
    SELECT l.*, relpages * block AS size_bytes,
           (1 + ceil(1.01 * leaf_bytes / ((block - 24 - 16) * fillfactor / 100))) * block AS estimated_bytes
      FROM leaves l
)
SELECT format('%I.%I', nspname, index_name) AS name, format('%I.%I', nspname, table_name) AS table_name,
       size_bytes, estimated_bytes, reltuples AS live_rows
  FROM estimated
 WHERE estimated_bytes IS NULL OR size_bytes - estimated_bytes > $2::float8 * size_bytes
 ORDER BY size_bytes - coalesce(estimated_bytes, size_bytes) DESC
 LIMIT 200
