-- What the optimizer no longer compares with or shows.
WITH runs AS (DELETE FROM optimizer_runs WHERE started_at < now() - interval '90 days'),
     -- The newest that is an hour old stays, for a comparison after a pause.
     snapshots AS (DELETE FROM counter_snapshots s
                    WHERE at < now() - interval '26 hours'
                       OR (at < now() - interval '3 hours' AND EXISTS (
                           SELECT 1 FROM counter_snapshots n
                            WHERE (n.target, n.check_id, n.name) = (s.target, s.check_id, s.name)
                              AND n.at > s.at AND n.at < now() - interval '1 hour'))),
     hours AS (DELETE FROM hourly_values WHERE hour < now() - interval '14 days'),
     actions AS (DELETE FROM applied_actions WHERE at < now() - interval '1 year')
DELETE FROM findings WHERE state = 'resolved' AND last_seen < now() - interval '90 days'
