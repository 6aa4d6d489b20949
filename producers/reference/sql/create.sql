-- The reference application's own table, apart from everything that streamgauge keeps.
CREATE SCHEMA IF NOT EXISTS reference_app;
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
