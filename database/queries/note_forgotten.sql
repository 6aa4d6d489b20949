-- $1 selector, $2 series, $3 events, $4 requested by
INSERT INTO forgotten (selector, series, events, requested_by) VALUES ($1, $2, $3, $4)
