-- Counters of a source ($1) at the run before, if it has not begun anew since ($2: its epoch).
SELECT extract(epoch FROM clock_timestamp() - at)::float8 AS seconds, counters::text AS counters
  FROM signal_counters WHERE source = $1 AND epoch = $2
