-- $1 consumer
DELETE FROM aggregators WHERE consumer = $1
