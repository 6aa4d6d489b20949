-- Retirement: producers long gone leave their counters to their service; a part lives too shortly to be vacuumed.

-- Runs with commits excluded, so that no commit can use a row that goes.
CREATE FUNCTION retire_producers(after_s float8) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    gone int[];
BEGIN
    SELECT array_agg(producer_no) INTO gone FROM producers p
     WHERE last_seen < now() - make_interval(secs => after_s)
       AND NOT EXISTS (SELECT FROM parked WHERE parked.producer_id = p.producer_id);
    IF gone IS NULL THEN
        RETURN 0;
    END IF;
    INSERT INTO retired AS r (service, producers, accepted, committed_events, quarantined_events, lost_events, duplicates)
    SELECT p.service, count(*), sum(p.accepted), sum(p.committed_events), sum(p.quarantined_events),
           sum(coalesce((SELECT sum(g.sealed_after - g.sealed_before) FROM gaps g
                          WHERE g.producer_no = p.producer_no), 0)), sum(p.duplicates)
      FROM producers p WHERE p.producer_no = ANY (gone) GROUP BY p.service
    ON CONFLICT (service) DO UPDATE SET
        producers = r.producers + excluded.producers, accepted = r.accepted + excluded.accepted,
        committed_events = r.committed_events + excluded.committed_events,
        quarantined_events = r.quarantined_events + excluded.quarantined_events,
        lost_events = r.lost_events + excluded.lost_events, duplicates = r.duplicates + excluded.duplicates;
    UPDATE retired r SET dropped = d.dropped
      FROM (SELECT service, jsonb_object_agg(key, total) AS dropped
              FROM (SELECT service, key, sum(value::bigint) AS total
                      FROM (SELECT service, dropped FROM producers WHERE producer_no = ANY (gone)
                            UNION ALL SELECT service, dropped FROM retired) AS x, jsonb_each_text(x.dropped)
                     GROUP BY service, key) AS by_key
             GROUP BY service) AS d
     WHERE d.service = r.service;
    DELETE FROM gauges WHERE producer_no = ANY (gone);
    DELETE FROM producers WHERE producer_no = ANY (gone);
    UPDATE state SET generation = generation + 1;
    RETURN cardinality(gone);
END $$;

CREATE OR REPLACE FUNCTION make_partition(parent text, name text, start_s bigint, end_s bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF parent NOT IN ('parts', 'rollup_10s', 'rollup_1m', 'rollup_1h') THEN
        RAISE EXCEPTION '% has no partitions', parent USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext(current_schema()), 4);
    -- Not to_regclass: it may answer from a cache that is older than the lock.
    IF EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = current_schema() AND c.relname = make_partition.name) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS)', name, parent);
    IF parent = 'parts' THEN
        EXECUTE format('ALTER TABLE %I SET (autovacuum_enabled = false, toast.autovacuum_enabled = false)', name);
    END IF;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name,
                   to_timestamp(start_s), to_timestamp(end_s));
END $$;

-- Who compacts and retains data needs no table of its own: these two act as the owner of the schema, on partitions
-- alone. Their search_path is fixed, so that nobody can slip them other tables.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION make_partition(text, text, bigint, bigint)
                    SECURITY DEFINER SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION drop_partition(text)
                    SECURITY DEFINER SET search_path = %I, pg_temp', current_schema());
END $$;
REVOKE EXECUTE ON FUNCTION make_partition(text, text, bigint, bigint), drop_partition(text) FROM PUBLIC;
