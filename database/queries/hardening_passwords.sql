-- A sentence for each password that is not SCRAM; needs a superuser.
SELECT 'password_encryption = ' || setting AS fault FROM pg_settings
 WHERE name = 'password_encryption' AND setting <> 'scram-sha-256'
UNION ALL
SELECT rolname || ' has a password that is not SCRAM' FROM pg_authid
 WHERE rolpassword IS NOT NULL AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'
