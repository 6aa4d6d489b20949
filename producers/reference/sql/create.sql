-- The reference application's own table, apart from everything that streamgauge keeps.
-- Where the schema was made for it, its role need not be able to make one (IF NOT EXISTS would ask for that right).
DO $$ BEGIN
    IF to_regnamespace('reference_app') IS NULL THEN CREATE SCHEMA reference_app; END IF;
END $$;
CREATE TABLE IF NOT EXISTS reference_app.listings (
    id         int PRIMARY KEY,
    address    text NOT NULL,
    district   text NOT NULL,
    kind       text NOT NULL,
    bedrooms   int NOT NULL,
    bathrooms  int NOT NULL,
    area_sqft  int NOT NULL,
    year_built int NOT NULL,
    price_usd  numeric(12, 2) NOT NULL,
    features   text[] NOT NULL
);
