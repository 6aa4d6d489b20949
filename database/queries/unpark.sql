-- $1 parked_id, $2 the reason for which it was parked: one that was settled by parking it for another stays.
DELETE FROM parked WHERE parked_id = $1 AND reason = $2
