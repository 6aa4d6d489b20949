-- $1 action, $2 after, $3 error: note how a change ended.
UPDATE applied_actions SET after = $2::text::jsonb, error = $3, finished_at = clock_timestamp() WHERE action_id = $1
