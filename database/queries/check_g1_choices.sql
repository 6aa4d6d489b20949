-- settings that are chosen, not counted; and how to find the server's process from here (address NULL: a socket)
SELECT current_setting('jit')::boolean AS jit, current_setting('wal_compression') AS wal_compression,
       (SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'wal_compression') AS has_lz4,
       pg_backend_pid() AS pid, host(inet_server_addr()) AS address
