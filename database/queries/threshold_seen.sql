-- $1 threshold: a person has looked at it: level shifts are judged from now on. Returns its side if it exists.
WITH forgotten AS (DELETE FROM threshold_medians WHERE threshold_id = $1)
UPDATE thresholds SET frozen = NULL WHERE threshold_id = $1 RETURNING side
