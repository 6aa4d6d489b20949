-- $1 schema: until the end of the transaction what is made there belongs to whom the schema belongs to
SELECT set_config('role', pg_get_userbyid(nspowner), true) FROM pg_namespace WHERE nspname = $1
