-- {table}, {column}: seconds since the newest heartbeat that this server has; NULL without any
SELECT extract(epoch FROM clock_timestamp() - max({column}))::float8 AS heartbeat_age_s FROM {table}
