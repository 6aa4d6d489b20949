-- The first statement of a transaction that nobody ends.
SELECT count(*) FROM streamgauge_demo.agents
