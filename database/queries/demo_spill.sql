-- Sorts more than work_mem holds.
SELECT note FROM streamgauge_demo.offers ORDER BY note DESC OFFSET 70000 LIMIT 1
