"""PostgreSQL: the schema, every SQL statement, and the asyncpg code that runs them."""
