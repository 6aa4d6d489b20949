DELETE FROM runs WHERE scheduled_for < now() - interval '30 days'
