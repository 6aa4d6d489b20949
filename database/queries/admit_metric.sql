-- $1 name, $2 kind, $3 help, $4 unit, $5 merge, $6 live. The first kind wins; other fields follow the newest deploy.
INSERT INTO metrics AS m (name, kind, help, unit, merge, live) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (name) DO UPDATE SET
    help = CASE WHEN m.kind = excluded.kind THEN excluded.help ELSE m.help END,
    unit = CASE WHEN m.kind = excluded.kind THEN excluded.unit ELSE m.unit END,
    merge = CASE WHEN m.kind = excluded.kind THEN excluded.merge ELSE m.merge END,
    live = CASE WHEN m.kind = excluded.kind THEN excluded.live ELSE m.live END
RETURNING metric_id, kind
