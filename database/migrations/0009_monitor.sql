-- Main schema only: what the exporter's monitor reads and keeps.

CREATE TABLE heartbeats (                 -- one row that aggregators touch: as old on a replica as the replica is behind
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    at timestamptz                        -- null: nobody has touched it yet
) WITH (fillfactor = 50);
INSERT INTO heartbeats DEFAULT VALUES;

CREATE TABLE component_states (           -- since when a component is what it is; outlives the exporter that saw it
    name text PRIMARY KEY,
    status text NOT NULL,
    since timestamptz NOT NULL
);
