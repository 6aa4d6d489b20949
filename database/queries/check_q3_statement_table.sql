-- How full the table of pg_stat_statements is, and how often entries were thrown out.
SELECT i.dealloc, i.stats_reset::text AS epoch, current_setting('pg_stat_statements.max')::int AS most,
       (SELECT count(*) FROM pg_stat_statements(false)) AS entries
  FROM pg_stat_statements_info i
