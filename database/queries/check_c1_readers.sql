-- tables that blocks were read for, with their indexes and TOAST, the most first
SELECT format('%I.%I', schemaname, relname) AS name,
       (coalesce(heap_blks_read, 0) + coalesce(idx_blks_read, 0)
        + coalesce(toast_blks_read, 0) + coalesce(tidx_blks_read, 0))::float8 AS blks_read
  FROM pg_statio_user_tables
 ORDER BY blks_read DESC
 LIMIT 500
