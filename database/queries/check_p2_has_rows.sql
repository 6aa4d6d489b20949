-- {table}: whether a row is in it; reads one, as n_live_tup is an estimate
SELECT EXISTS (SELECT FROM {table} LIMIT 1)
