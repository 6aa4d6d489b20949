-- $1 how long a producer is kept after it was last heard of (seconds)
SELECT retire_producers($1)
