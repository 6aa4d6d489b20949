-- $1 agent: a change of the parent makes PostgreSQL look for its children, without an index to help.
UPDATE streamgauge_demo.agents SET name = name || '' WHERE agent_id = $1
