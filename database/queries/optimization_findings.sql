-- $1 at most: findings that are open or pending, worst first.
SELECT fingerprint, target, check_id, object, severity, evidence, recommendation, sql, rollback, tier, state,
       first_seen, last_seen, runs_seen
  FROM findings WHERE state <> 'resolved'
 ORDER BY state, array_position(ARRAY['critical', 'warn', 'info'], severity), first_seen, fingerprint LIMIT $1
