-- $1 target: when each check last answered.
SELECT check_id, at FROM check_results WHERE target = $1
