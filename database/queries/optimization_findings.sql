-- $1 at most: findings that are open or pending, worst first; acted_at: changed since it was last seen.
SELECT fingerprint, target, check_id, object, severity, evidence, recommendation, sql, rollback, tier, state,
       first_seen, last_seen, runs_seen,
       (SELECT max(a.finished_at) FROM applied_actions a
         WHERE a.target = f.target AND a.fingerprint = f.fingerprint AND a.error IS NULL AND a.at >= f.last_seen
       ) AS acted_at
  FROM findings f WHERE state <> 'resolved'
 ORDER BY state, array_position(ARRAY['critical', 'warn', 'info'], severity), first_seen, fingerprint LIMIT $1
