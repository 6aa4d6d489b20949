SELECT id, address, district, kind, bedrooms, bathrooms, area_sqft, year_built, price_usd, features
FROM reference_app.listings WHERE id = $1
