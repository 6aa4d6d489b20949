-- $1 target, $2 check, $3 now, $4 findings (JSON), $5 fingerprints of all that was found, also beyond the cap,
-- $6 runs until open, $7 absent runs until resolved, $8 whether what was not found is absent.
WITH found AS (
    SELECT * FROM jsonb_to_recordset($4::text::jsonb) AS f (fingerprint text, object text, severity text, evidence jsonb,
        recommendation text, sql text, rollback text, tier text, remedy text)
), passed AS (
    DELETE FROM findings
     WHERE target = $1 AND check_id = $2 AND state = 'pending' AND $8 AND fingerprint <> ALL ($5::text[])
), absent AS (
    UPDATE findings SET runs_absent = runs_absent + 1,
           state = CASE WHEN runs_absent + 1 >= $7::int THEN 'resolved' ELSE state END
     WHERE target = $1 AND check_id = $2 AND state = 'open' AND $8 AND fingerprint <> ALL ($5::text[])
)
INSERT INTO findings AS f (fingerprint, target, check_id, object, severity, evidence, recommendation, sql, rollback,
    tier, remedy, state, first_seen, last_seen, runs_seen)
SELECT fingerprint, $1, $2, object, severity, evidence, recommendation, sql, rollback, tier, remedy,
       CASE WHEN $6::int <= 1 THEN 'open' ELSE 'pending' END, $3, $3, 1 FROM found
ON CONFLICT (fingerprint) DO UPDATE SET
    severity = excluded.severity, evidence = excluded.evidence, recommendation = excluded.recommendation,
    sql = excluded.sql, rollback = excluded.rollback, tier = excluded.tier, remedy = excluded.remedy,
    first_seen = CASE WHEN f.state = 'resolved' THEN excluded.first_seen ELSE f.first_seen END,
    last_seen = excluded.last_seen,
    runs_seen = CASE WHEN f.state = 'resolved' THEN 1 ELSE f.runs_seen + 1 END,
    runs_absent = 0,
    state = CASE WHEN f.state = 'open' THEN 'open'
                 WHEN (CASE WHEN f.state = 'resolved' THEN 1 ELSE f.runs_seen + 1 END) >= $6::int THEN 'open'
                 ELSE 'pending' END
