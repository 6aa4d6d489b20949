-- When each producer was last heard of, as columns.
SELECT string_agg(int4send(producer_no), '') AS producers, string_agg(int4send(shard), '') AS shards,
       string_agg(int4send(fin::int), '') AS ended, string_agg(timestamptz_send(last_seen), '') AS last_seen
  FROM producers
