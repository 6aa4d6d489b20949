DELETE FROM aggregators WHERE seen_at < now() - interval '1 hour'
