-- Recommendations that no longer stand and were last seen more than 90 days ago.
DELETE FROM recommendations WHERE state <> 'proposed' AND last_seen < now() - interval '90 days'
