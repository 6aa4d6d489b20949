-- $1 series ids: their totals as columns per layout; all columns of a layout are in the same order.
SELECT layout_id, string_agg(int4send(series_id), '') AS ids, string_agg(int2send(shard), '') AS shards,
       string_agg(int8send(n), '') AS ns, string_agg(float8send(sum), '') AS sums,
       string_agg(array_send(le), '') AS les
  FROM totals WHERE series_id = ANY ($1) GROUP BY layout_id
