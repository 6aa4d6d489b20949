-- $1 parent, $2 name, $3 start, $4 end (Unix seconds)
SELECT make_partition($1, $2, $3::bigint, $4::bigint)
