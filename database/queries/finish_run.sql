-- $1 job, $2 slot, $3 outcome, $4 detail
UPDATE runs SET finished_at = now(), outcome = $3, detail = $4 WHERE job = $1 AND scheduled_for = $2
