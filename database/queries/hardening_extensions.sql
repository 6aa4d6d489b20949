-- Extensions of this database.
SELECT extname FROM pg_extension ORDER BY extname
