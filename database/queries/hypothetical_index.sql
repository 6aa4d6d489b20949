-- {schema} of HypoPG; $1 statement: an index that only the planner of this session sees, and its estimated size.
SELECT i.indexrelid::bigint AS index_id, {schema}.hypopg_relation_size(i.indexrelid) AS size_bytes
  FROM {schema}.hypopg_create_index($1) AS i
