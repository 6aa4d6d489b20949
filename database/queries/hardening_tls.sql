-- A sentence for what is not TLS 1.2 or newer: the server, or a connection over the network.
SELECT name || ' = ' || setting AS fault FROM pg_settings
 WHERE (name = 'ssl' AND setting <> 'on')
    OR (name = 'ssl_min_protocol_version' AND setting NOT IN ('TLSv1.2', 'TLSv1.3'))
UNION ALL
SELECT coalesce(a.usename, '?') || ' is connected from ' || host(a.client_addr) || ' without TLS'
  FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)
 WHERE a.client_addr IS NOT NULL AND NOT s.ssl
