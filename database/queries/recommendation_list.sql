-- $1 rows at most: what stands first, then by when it was last seen.
SELECT id, kind, target, current, proposed, expected_effect, evidence::text AS evidence, confidence, state,
       first_seen, last_seen
  FROM recommendations ORDER BY state = 'proposed' DESC, last_seen DESC, id LIMIT $1
