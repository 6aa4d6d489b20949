-- $1 name: how many parameters a prepared statement has; null: there is none.
SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1
