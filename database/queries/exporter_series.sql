-- $1 series ids, or null for all: identities per metric, as columns. Keys hold no newline (they are escaped).
SELECT metric_id, string_agg(int4send(series_id), '') AS ids, string_agg(key, E'\n') AS keys,
       string_agg(timestamptz_send(active_at), '') AS active
  FROM series WHERE $1::int[] IS NULL OR series_id = ANY ($1) GROUP BY metric_id
