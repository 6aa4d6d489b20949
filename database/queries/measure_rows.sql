SELECT count(*) AS rows, min(series_id) AS low, max(series_id) AS high,
       coalesce(sum(octet_length(sketch)), 0)::bigint AS sketch_bytes
  FROM {table} WHERE {windows}
