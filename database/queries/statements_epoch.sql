-- When pg_stat_statements was last reset.
SELECT stats_reset::text FROM pg_stat_statements_info
