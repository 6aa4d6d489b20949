-- A sentence for each line of pg_hba.conf that lets in too much, or is broken; needs a superuser.
SELECT 'line ' || line_number || ': ' || coalesce(error,
           CASE WHEN auth_method IN ('trust', 'password', 'md5', 'ident') THEN 'lets in by ' || auth_method
                WHEN type IN ('host', 'hostnossl') THEN 'allows connections without TLS'
                ELSE 'lets replicas in from anywhere' END) AS fault
  FROM pg_hba_file_rules
 WHERE error IS NOT NULL OR auth_method IN ('trust', 'password', 'md5', 'ident')
    OR (type IN ('host', 'hostnossl') AND auth_method <> 'reject')
    OR ('replication' = ANY (database) AND auth_method <> 'reject' AND type <> 'local' AND address IN ('all', '0.0.0.0', '::'))
 ORDER BY line_number
