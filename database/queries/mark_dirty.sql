-- $1 level, $2 windows
INSERT INTO dirty (level, window_start) SELECT $1, t FROM unnest($2::timestamptz[]) AS t
