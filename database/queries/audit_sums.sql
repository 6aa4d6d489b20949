SELECT (SELECT coalesce(sum(committed_events), 0) FROM producers)::bigint
       + (SELECT coalesce(sum(committed_events), 0) FROM retired)::bigint AS in_ledger,
       (SELECT coalesce(sum(n), 0) FROM totals)::bigint
       + (SELECT coalesce(sum(events), 0) FROM forgotten)::bigint AS in_totals
