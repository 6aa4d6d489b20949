-- $1 kind, $2 its advice as a JSON array: what stands already keeps its id and first_seen.
INSERT INTO recommendations AS r (kind, target, current, proposed, expected_effect, evidence, confidence,
                                  first_seen, last_seen)
SELECT $1, a.target, a.current, a.proposed, a.expected_effect, a.evidence, a.confidence, now(), now()
  FROM jsonb_to_recordset($2::text::jsonb)
       AS a (target text, current text, proposed text, expected_effect text, evidence jsonb, confidence text)
ON CONFLICT (kind, target) WHERE state = 'proposed' DO UPDATE SET
    current = excluded.current, proposed = excluded.proposed, expected_effect = excluded.expected_effect,
    evidence = excluded.evidence, confidence = excluded.confidence, last_seen = excluded.last_seen
