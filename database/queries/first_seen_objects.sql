-- $1 target, $2 check, $3 now, $4 objects: note the new ones, forget those that are gone, say since when each is known.
WITH gone AS (
    DELETE FROM observed_objects WHERE target = $1 AND check_id = $2 AND object <> ALL ($4::text[])
), new AS (
    INSERT INTO observed_objects (target, check_id, object, first_seen)
    SELECT $1, $2, object, $3 FROM unnest($4::text[]) AS u (object)
    ON CONFLICT (target, check_id, object) DO NOTHING
    RETURNING object, first_seen
)
SELECT object, first_seen FROM new
UNION ALL
SELECT object, first_seen FROM observed_objects WHERE target = $1 AND check_id = $2 AND object = ANY ($4::text[])
