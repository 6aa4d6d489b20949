SELECT string_agg(timestamptz_send(window_start), '') AS window_start,
       string_agg(int4send(series_id), '') AS series_id,
       string_agg(int4send(producer_no), '') AS producer_no,
       string_agg(int8send(n), '') AS n,
       string_agg(float8send(sum), '') AS sum,
       string_agg(float8send(coalesce(min, 'NaN')), '') AS min,
       string_agg(float8send(coalesce(max, 'NaN')), '') AS max,
       string_agg(float8send(coalesce(last, 'NaN')), '') AS last,
       string_agg(int4send(coalesce(octet_length(sketch), -1)), '') AS sketch_len,
       string_agg(sketch, '') AS sketch
  FROM {source}
