-- Bounds: what producers say of themselves may be anything; no sum of it may end a query.

-- A sum as a bigint, the largest where it is more: it stands still there, and never falls.
CREATE FUNCTION bounded(total numeric) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN least(total, 9223372036854775807)::bigint;

ALTER TABLE retired ADD COLUMN displaced bigint NOT NULL DEFAULT 0;

-- Runs with commits excluded, so that no commit can use a row that goes.
CREATE OR REPLACE FUNCTION retire_producers(after_s float8) RETURNS bigint
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
    INSERT INTO retired AS r (service, producers, accepted, committed_events, quarantined_events, lost_events, duplicates,
                              displaced)
    SELECT p.service, count(*), bounded(sum(p.accepted)), bounded(sum(p.committed_events)),
           bounded(sum(p.quarantined_events)),
           bounded(sum(coalesce((SELECT sum(g.sealed_after - g.sealed_before) FROM gaps g
                                  WHERE g.producer_no = p.producer_no), 0))), bounded(sum(p.duplicates)),
           bounded(sum(p.displaced))
      FROM producers p WHERE p.producer_no = ANY (gone) GROUP BY p.service
    ON CONFLICT (service) DO UPDATE SET
        producers = r.producers + excluded.producers,
        accepted = bounded(r.accepted::numeric + excluded.accepted),
        committed_events = bounded(r.committed_events::numeric + excluded.committed_events),
        quarantined_events = bounded(r.quarantined_events::numeric + excluded.quarantined_events),
        lost_events = bounded(r.lost_events::numeric + excluded.lost_events),
        duplicates = bounded(r.duplicates::numeric + excluded.duplicates),
        displaced = bounded(r.displaced::numeric + excluded.displaced);
    UPDATE retired r SET dropped = d.dropped
      FROM (SELECT service, jsonb_object_agg(key, bounded(total)) AS dropped
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

-- Quarantines one decoded batch: accounts for its seq so that it is neither lost nor applied twice.
-- Returns false if the seq was accounted for already (a duplicate); SG001 tells that the producer was retired.
CREATE OR REPLACE FUNCTION quarantine_batch(
    shard_no smallint, entry_id text, why text, about text, producer int, id uuid, batch_seq bigint,
    n_events bigint, before bigint, after bigint, window_s bigint, body_accepted bigint, body_dropped jsonb,
    raw bytea
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    p producers%ROWTYPE;
BEGIN
    SELECT * INTO p FROM producers WHERE producer_no = producer FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'a producer row is gone' USING ERRCODE = 'SG001';
    END IF;
    IF p.applied @> batch_seq OR p.quarantined @> batch_seq THEN
        UPDATE producers SET duplicates = duplicates + 1 WHERE producer_no = producer;
        RETURN false;
    END IF;
    IF before IS NULL THEN
        -- The body could not be read: go by the envelope's events, from the edge that is known.
        SELECT coalesce((SELECT g.sealed_before FROM gaps g
                          WHERE g.producer_no = producer AND g.first_seq <= batch_seq AND g.end_seq > batch_seq),
                        p.top_sealed) INTO before;
        after := before + n_events;
        window_s := greatest(window_s, p.watermark_s);
        IF batch_seq > p.top_seq THEN
            body_accepted := p.accepted + n_events;
            body_dropped := p.dropped;
        END IF;
    END IF;
    PERFORM book_run(producer, batch_seq, batch_seq + 1, before, after, window_s, window_s);
    UPDATE producers SET
        quarantined = quarantined + int8multirange(int8range(batch_seq, batch_seq + 1)),
        quarantined_events = quarantined_events + n_events,
        dropped = CASE WHEN body_accepted >= accepted THEN body_dropped ELSE dropped END,
        accepted = greatest(accepted, coalesce(body_accepted, 0)),
        last_seen = now()
     WHERE producer_no = producer;
    INSERT INTO quarantine (shard, stream_id, reason, detail, producer_id, seq, events, payload)
    VALUES (shard_no, entry_id, why, about, id, batch_seq, n_events, raw)
    ON CONFLICT DO NOTHING;
    RETURN true;
END $$;
