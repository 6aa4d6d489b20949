-- Where this snapshot stands: taken first in the transaction of a refresh.
SELECT pg_current_snapshot()::text AS snapshot,
       pg_is_in_recovery() AS in_recovery,
       (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       CASE WHEN pg_is_in_recovery() THEN 0
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END AS timeline,
       EXISTS (SELECT FROM fences WHERE lowered_at IS NULL) AS fenced,
       (SELECT generation FROM state) AS generation,
       (SELECT min(commit_id) FROM commits) AS first_commit,
       (SELECT max(commit_id) FROM commits) AS last_commit,
       (SELECT extract(epoch FROM at)::float8 FROM commits ORDER BY commit_id DESC LIMIT 1) AS last_commit_s,
       extract(epoch FROM now())::float8 AS now_s
