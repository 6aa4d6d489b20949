-- A schema that is ill on purpose, so that the checks of DatabaseOptimizer have something to find. Made anew each time.
DROP SCHEMA IF EXISTS streamgauge_demo CASCADE;
CREATE SCHEMA streamgauge_demo;
COMMENT ON SCHEMA streamgauge_demo IS 'Made by `streamgauge up --demo`: deliberately ill. Dropped when the demo ends.';

-- No index on the foreign key, two indexes of which one repeats the other, an index nobody asks for.
CREATE TABLE streamgauge_demo.agents (agent_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
INSERT INTO streamgauge_demo.agents (name) SELECT 'agent ' || i FROM generate_series(1, 2000) AS i;
CREATE TABLE streamgauge_demo.offers (
    offer_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent_id int NOT NULL REFERENCES streamgauge_demo.agents,
    city text NOT NULL,
    price int NOT NULL,
    note text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_enabled = off);
INSERT INTO streamgauge_demo.offers (agent_id, city, price, note)
SELECT 1 + i % 2000, 'city ' || i % 500, 100000 + (i::bigint * 7919) % 900000, repeat(md5(i::text), 4)
  FROM generate_series(1, 120000) AS i;
CREATE INDEX offers_price ON streamgauge_demo.offers (price);
CREATE INDEX offers_price_again ON streamgauge_demo.offers (price);
CREATE INDEX offers_note ON streamgauge_demo.offers (note);

-- Statistics that are older than the rows, and a third of the rows dead.
DELETE FROM streamgauge_demo.offers WHERE offer_id % 3 = 0;

-- A key that is nearly used up, and a constraint that was never checked.
CREATE TABLE streamgauge_demo.visits (visit_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, offer_id int);
SELECT setval(pg_get_serial_sequence('streamgauge_demo.visits', 'visit_id'), 2040000000);
ALTER TABLE streamgauge_demo.visits ADD CONSTRAINT visits_offer_positive CHECK (offer_id > 0) NOT VALID;
