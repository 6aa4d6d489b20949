-- settings that are chosen, not counted; and how to find the server's process from here (address NULL: a socket)
SELECT current_setting('jit')::boolean AS jit, current_setting('wal_compression') AS wal_compression,
       pg_backend_pid() AS pid, host(inet_server_addr()) AS address
