-- Ends the demo: nothing of it stays.
DROP SCHEMA IF EXISTS streamgauge_demo CASCADE
