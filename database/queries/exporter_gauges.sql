-- $1 series ids, or null for all: the newest value of each producer, as columns.
SELECT string_agg(int4send(series_id), '') AS series, string_agg(int4send(producer_no), '') AS producers,
       string_agg(float8send(value), '') AS values, string_agg(int8send(set_ms), '') AS set_ms
  FROM gauges WHERE $1::int[] IS NULL OR series_id = ANY ($1)
