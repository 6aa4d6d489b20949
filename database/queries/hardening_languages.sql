-- Languages that run outside PostgreSQL's own control, but C and internal, which only superusers use.
SELECT lanname FROM pg_language WHERE NOT lanpltrusted AND lanname NOT IN ('c', 'internal') ORDER BY lanname
