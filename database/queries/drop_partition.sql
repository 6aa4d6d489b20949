-- $1 name: see drop_partition in the migrations
SELECT drop_partition($1)
