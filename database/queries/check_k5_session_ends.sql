-- sessions of this database, and how many ended badly
SELECT sessions::float8, sessions_abandoned::float8 AS abandoned, sessions_fatal::float8 AS fatal,
       sessions_killed::float8 AS killed
  FROM pg_stat_database WHERE datname = current_database()
