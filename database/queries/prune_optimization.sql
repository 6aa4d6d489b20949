-- What the optimizer no longer compares with or shows.
WITH runs AS (DELETE FROM optimizer_runs WHERE started_at < now() - interval '90 days'),
     snapshots AS (DELETE FROM counter_snapshots WHERE at < now() - interval '26 hours'),
     hours AS (DELETE FROM hourly_values WHERE hour < now() - interval '14 days'),
     actions AS (DELETE FROM applied_actions WHERE at < now() - interval '1 year')
DELETE FROM findings WHERE state = 'resolved' AND last_seen < now() - interval '90 days'
