-- Lifetimes of classes that had look-ups in the last two days: what caches said, what is proposed, what is set.
SELECT 'streamgauge_cache_ttl_seconds' AS name, ARRAY[l.key_class, w.what] AS labels, w.seconds AS value
  FROM cache_lifetimes l
 CROSS JOIN LATERAL (VALUES ('current', l.current_s), ('proposed', l.proposed_s), ('applied', l.applied_s))
       AS w (what, seconds)
 WHERE w.seconds IS NOT NULL AND (l.seen_at > now() - interval '2 days' OR l.applied_s IS NOT NULL)
