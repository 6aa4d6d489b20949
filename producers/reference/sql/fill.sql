-- $1: the shipped listings, a JSON array of objects. Listings that are there stay as they are.
INSERT INTO reference_app.listings
SELECT * FROM jsonb_populate_recordset(NULL::reference_app.listings, $1::jsonb)
ON CONFLICT (id) DO NOTHING
