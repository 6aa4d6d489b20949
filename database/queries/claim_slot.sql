-- $1 job, $2 slot width in seconds, $3 consumer
INSERT INTO runs (job, scheduled_for, consumer)
VALUES ($1, to_timestamp(floor(extract(epoch FROM now()) / $2::float8) * $2::float8), $3)
ON CONFLICT (job, scheduled_for) DO NOTHING
RETURNING scheduled_for
