-- $1 windows that are computed anew as a whole
DELETE FROM {table} WHERE window_start = ANY ($1::timestamptz[])
