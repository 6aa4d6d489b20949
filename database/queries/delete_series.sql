-- $1 series
DELETE FROM {table} WHERE series_id = ANY ($1::int[])
