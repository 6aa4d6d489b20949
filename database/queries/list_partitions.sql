-- $1 parent: names of its partitions; a name ends with its start, so that they sort by time
SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = to_regclass($1) ORDER BY c.relname
