-- Windows of one table's rows.
SELECT DISTINCT extract(epoch FROM window_start)::bigint AS window_s FROM {table}
