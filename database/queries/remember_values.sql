-- $1 target, $2 check, $3 name, $4 now, $5 objects, $6 values (JSON texts): keep this hour's values.
INSERT INTO hourly_values (target, check_id, name, object, hour, counters)
SELECT $1, $2, $3, o.object, date_trunc('hour', $4::timestamptz, 'UTC'), o.counters::jsonb
  FROM unnest($5::text[], $6::text[]) AS o (object, counters)
ON CONFLICT (target, check_id, name, object, hour) DO UPDATE SET counters = excluded.counters
