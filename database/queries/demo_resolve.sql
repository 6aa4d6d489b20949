-- What was found in the schema of a demo that is gone.
UPDATE findings SET state = 'resolved' WHERE state <> 'resolved' AND position('streamgauge_demo.' IN object) > 0
