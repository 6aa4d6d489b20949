-- Temporary files of this database.
SELECT format('%I', datname) AS name, temp_files, temp_bytes FROM pg_stat_database WHERE datname = current_database()
