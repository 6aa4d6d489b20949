-- $1 parked_id
DELETE FROM parked WHERE parked_id = $1
