-- Whether a check that raised a fence has failed or died before it was through.
SELECT EXISTS (SELECT FROM fences WHERE lowered_at IS NULL)
