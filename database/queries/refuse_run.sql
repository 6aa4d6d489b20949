-- $1 run id, $2 events
UPDATE load_runs SET refused_events = refused_events + $2 WHERE run_id = $1
