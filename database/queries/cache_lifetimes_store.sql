-- $1 a JSON array of rows: each replaces the row of its class.
INSERT INTO cache_lifetimes
SELECT * FROM jsonb_populate_recordset(NULL::cache_lifetimes, $1::text::jsonb)
ON CONFLICT (key_class) DO UPDATE SET
    seen_at = excluded.seen_at, judged_to = excluded.judged_to, status = excluded.status, detail = excluded.detail,
    current_s = excluded.current_s, proposed_s = excluded.proposed_s, applied_s = excluded.applied_s,
    is_ours = excluded.is_ours, published_at = excluded.published_at, is_watched = excluded.is_watched,
    before_applied_s = excluded.before_applied_s, baseline = excluded.baseline, held_until = excluded.held_until
