-- $1 target, $2 check, $3 title, $4 at, $5 status unless an open finding says worse (an error stays one), $6 seconds,
-- $7 findings, $8 kind of error, $9 detail.
INSERT INTO check_results (target, check_id, title, at, status, duration_s, findings, error_kind, detail)
VALUES ($1, $2, $3, $4, CASE WHEN $8::text IS NOT NULL THEN 'error' ELSE coalesce((
    SELECT CASE max(CASE severity WHEN 'critical' THEN 2 WHEN 'warn' THEN 1 ELSE 0 END)
           WHEN 2 THEN 'critical' WHEN 1 THEN 'warn' END
      FROM findings WHERE target = $1 AND check_id = $2 AND state = 'open'), $5) END, $6, $7, $8, $9)
ON CONFLICT (target, check_id) DO UPDATE SET title = excluded.title, at = excluded.at, status = excluded.status,
    duration_s = excluded.duration_s, findings = excluded.findings, error_kind = excluded.error_kind,
    detail = excluded.detail
