-- settings that depend on memory and storage, in bytes where they have a unit, and where the server runs
SELECT name, setting::float8 * CASE unit WHEN '8kB' THEN 8192 WHEN 'kB' THEN 1024 WHEN 'MB' THEN 1048576 ELSE 1 END
           AS value
  FROM pg_settings
 WHERE name IN ('shared_buffers', 'effective_cache_size', 'maintenance_work_mem', 'autovacuum_work_mem', 'work_mem',
                'wal_buffers', 'min_wal_size', 'max_wal_size', 'random_page_cost', 'effective_io_concurrency',
                'max_connections', 'max_worker_processes', 'autovacuum_max_workers')
