-- What the optimizer's checks of statements read; the server must have been started with the library.
CREATE EXTENSION IF NOT EXISTS pg_stat_statements
