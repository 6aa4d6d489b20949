-- $1 names: those that are no table of search_path
SELECT n AS name FROM unnest($1::text[]) AS n WHERE to_regclass(n) IS NULL
