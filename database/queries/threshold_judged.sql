-- $1 threshold, $2 why it is frozen or null: a run has judged it.
UPDATE thresholds SET frozen = $2, calibrated_at = now() WHERE threshold_id = $1
