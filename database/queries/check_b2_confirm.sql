-- $1 table; {schema} of pgstattuple: free and dead bytes by its visibility map, reading pages with dead rows only
SELECT table_len::float8 AS size_bytes, (approx_free_space + dead_tuple_len)::float8 AS free_bytes
  FROM {schema}.pgstattuple_approx($1::text::regclass)
