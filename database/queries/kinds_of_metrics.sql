-- $1 names
SELECT name, kind FROM metrics WHERE name = ANY ($1::text[])
