-- Whether a demo that was killed left its schema: it is there, and no demo is connected.
SELECT to_regnamespace('streamgauge_demo') IS NOT NULL
   AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'streamgauge demo')
