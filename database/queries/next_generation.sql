-- Cached numbers become invalid.
UPDATE state SET generation = generation + 1
