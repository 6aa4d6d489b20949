-- The rows that match are deleted and returned as columns.
WITH gone AS (DELETE FROM {table} WHERE {condition} RETURNING *) {read}
