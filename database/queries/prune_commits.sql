-- Exporters read them within seconds; one that was away for longer loads everything again.
DELETE FROM commits WHERE at < now() - interval '10 min' AND commit_id <= (SELECT max(commit_id) FROM commits) - 1000
