-- $1 targets that are configured, $2 checks there are: what others left is no longer watched.
WITH results AS (
    DELETE FROM check_results WHERE target <> ALL ($1::text[]) OR check_id <> ALL ($2::text[])
), targets AS (
    DELETE FROM optimizer_targets WHERE target <> ALL ($1::text[])
), pending AS (
    DELETE FROM findings WHERE state = 'pending' AND (target <> ALL ($1::text[]) OR check_id <> ALL ($2::text[]))
)
UPDATE findings SET state = 'resolved'
 WHERE state = 'open' AND (target <> ALL ($1::text[]) OR check_id <> ALL ($2::text[]))
