-- Statements of this database as pg_stat_statements counts them, over all roles.
SELECT s.queryid::text AS queryid, sum(s.calls)::float8 AS calls, sum(s.total_exec_time)::float8 AS total_ms,
       sum(s.rows)::float8 AS rows, sum(s.shared_blks_read)::float8 AS blocks_read,
       sum(s.temp_blks_written)::float8 AS temp_blocks, min(s.query) AS query,
       array_agg(DISTINCT pg_get_userbyid(s.userid)::text) AS roles
  FROM pg_stat_statements s
 WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
 GROUP BY s.queryid
