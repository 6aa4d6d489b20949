-- $1 names as in tallies_kept, $2 numbers: the larger ones hold
WITH given AS (
    SELECT name, n FROM unnest($1::text[], $2::bigint[]) AS g (name, n)
), of_jobs AS (
    INSERT INTO job_tallies AS t (job, outcome, n)
    SELECT split_part(name, '/', 2), split_part(name, '/', 3), n FROM given WHERE name LIKE 'job/%'
    ON CONFLICT (job, outcome) DO UPDATE SET n = greatest(t.n, excluded.n)
)
INSERT INTO tallies AS t (name, value)
SELECT name, n FROM given WHERE name NOT LIKE 'job/%'
ON CONFLICT (name) DO UPDATE SET value = greatest(t.value, excluded.value)
