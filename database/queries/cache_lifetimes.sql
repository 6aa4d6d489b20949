-- Every class of keys.
SELECT key_class, seen_at, judged_to, status, detail, current_s, proposed_s, applied_s, is_ours, published_at,
       is_watched, before_applied_s, baseline, held_until
  FROM cache_lifetimes ORDER BY key_class
