-- Every target, ours first.
SELECT target, observed_since, seen_at, stats_age_s, facts FROM optimizer_targets
 ORDER BY target <> 'monitoring', target
