-- $1 jobs, $2 titles, $3 intervals in s, $4 whether they judge data: what an aggregator has in its schedule
INSERT INTO jobs (job, title, every_s, judges_data)
SELECT * FROM unnest($1::text[], $2::text[], $3::float8[], $4::boolean[]) ORDER BY 1
ON CONFLICT (job) DO UPDATE SET title = excluded.title, every_s = excluded.every_s, judges_data = excluded.judges_data,
                                seen_at = clock_timestamp()
