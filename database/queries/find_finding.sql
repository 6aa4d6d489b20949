-- $1 fingerprint, or the beginning of one.
SELECT * FROM findings WHERE starts_with(fingerprint, $1) ORDER BY fingerprint LIMIT 2
