-- Whether something was committed in the last minute: without rows, a rate is then 0 and not unknown.
SELECT EXISTS (SELECT 1 FROM commits WHERE at > now() - interval '1 minute')
