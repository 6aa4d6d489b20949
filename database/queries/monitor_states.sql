-- Since when each component is what it is.
SELECT name, status, since FROM component_states
