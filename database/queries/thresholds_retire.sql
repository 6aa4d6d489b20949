-- $1 thresholds that are calibrated: all others are shown no more; their history stays.
UPDATE thresholds SET is_retired = true WHERE NOT is_retired AND NOT threshold_id = ANY ($1::int[])
