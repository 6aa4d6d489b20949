-- $1 level, $2 windows that were just written
INSERT INTO windows AS w (level, window_start) SELECT $1, t FROM unnest($2::timestamptz[]) AS t
ON CONFLICT (level, window_start) DO UPDATE SET revision = w.revision + 1, rolled_at = now()
