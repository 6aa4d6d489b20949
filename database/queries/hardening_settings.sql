-- Settings that hardening rules look at.
SELECT name, setting FROM pg_settings
 WHERE name IN ('fsync', 'full_page_writes', 'data_checksums', 'data_directory_mode', 'max_slot_wal_keep_size',
                'log_connections', 'log_disconnections', 'log_lock_waits', 'log_min_duration_statement',
                'log_line_prefix')
