-- $1 at most: changes that were made, newest first.
SELECT at, finished_at, target, check_id, fingerprint, tier, sql, rollback, before, after, error
  FROM applied_actions ORDER BY action_id DESC LIMIT $1
