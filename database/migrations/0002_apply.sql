-- The exactly-once step: one statement with complete parameters that locks, checks, advances and adds.
-- Names are resolved through the caller's search_path, so that a load-test schema works with the same code.

-- Adds to totals one group of rows that share a bucket count. An expression per bucket in the statement's text
-- costs 15 ms per 10 000 rows of 12 buckets; array_agg over unnest costs 125 ms.
CREATE FUNCTION add_totals(ids int[], layouts int[], shards smallint[], ns bigint[], sums float8[],
                           width int, les bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    fresh text;
    added text;
BEGIN
    SELECT 'ARRAY[' || string_agg(format('$6[(o - 1) * %s + %s]', width, i), ', ' ORDER BY i) || ']::bigint[]',
           'ARRAY[' || string_agg(format('t.le[%s] + excluded.le[%s]', i, i), ', ' ORDER BY i) || ']'
      INTO fresh, added
      FROM generate_series(1, width) AS i;
    EXECUTE format(
        'INSERT INTO totals AS t (series_id, layout_id, shard, n, sum, le)
         SELECT s, l, h, n, x, %s FROM unnest($1, $2, $3, $4, $5) WITH ORDINALITY AS u(s, l, h, n, x, o)
         ORDER BY s, l, h
         ON CONFLICT (series_id, layout_id, shard) DO UPDATE
         SET n = t.n + excluded.n, sum = t.sum + excluded.sum, le = %s',
        coalesce(fresh, 'NULL::bigint[]'), coalesce(added, 'NULL::bigint[]'))
    USING ids, layouts, shards, ns, sums, les;
END $$;

-- Books one run of consecutive new seqs [lo, hi) of a producer against its gaps. Rows of the producer are locked.
-- Called before producers.top_seq is advanced.
CREATE FUNCTION book_run(producer int, lo bigint, hi bigint, before bigint, after bigint,
                         window_lo_s bigint, window_hi_s bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    p producers%ROWTYPE;
    g gaps%ROWTYPE;
BEGIN
    SELECT * INTO STRICT p FROM producers WHERE producer_no = producer;
    IF lo > p.top_seq THEN
        IF lo > p.top_seq + 1 THEN
            INSERT INTO gaps (producer_no, first_seq, end_seq, sealed_before, sealed_after,
                              window_before_s, window_after_s)
            VALUES (producer, p.top_seq + 1, lo, p.top_sealed, greatest(before, p.top_sealed),
                    p.watermark_s, window_lo_s);
        END IF;
        UPDATE producers SET top_seq = hi - 1, top_sealed = greatest(after, top_sealed),
               watermark_s = greatest(watermark_s, window_hi_s)
         WHERE producer_no = producer;
        RETURN;
    END IF;
    SELECT * INTO g FROM gaps WHERE producer_no = producer AND first_seq <= lo AND end_seq >= hi;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'BUG: seqs [%, %) of producer % are neither new nor in a gap', lo, hi, producer;
    END IF;
    DELETE FROM gaps WHERE producer_no = producer AND first_seq = g.first_seq;
    IF g.first_seq < lo THEN
        INSERT INTO gaps VALUES (producer, g.first_seq, lo, g.sealed_before, greatest(before, g.sealed_before),
                                 g.window_before_s, window_lo_s, g.opened_at, g.closed_at);
    END IF;
    IF hi < g.end_seq THEN
        INSERT INTO gaps VALUES (producer, hi, g.end_seq, least(after, g.sealed_after), g.sealed_after,
                                 window_hi_s, g.window_after_s, g.opened_at, g.closed_at);
    END IF;
END $$;

-- Locks the producers' rows in key order and returns those of the given seqs that are accounted for already.
-- If it returns any row, nothing may be applied: roll back, leave those batches out, try again.
CREATE FUNCTION lock_and_check(expected_generation bigint, producer_nos int[], batch_producers int[],
                               batch_seqs bigint[]) RETURNS TABLE (producer_no int, seq bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found_rows int;
BEGIN
    -- Shared: commits run together; `forget` takes it exclusively before it invalidates ids.
    PERFORM pg_advisory_xact_lock_shared(hashtext(current_schema()), 1);
    IF (SELECT generation FROM state) <> expected_generation THEN
        RAISE EXCEPTION 'generation changed' USING ERRCODE = 'SG001';
    END IF;
    PERFORM 1 FROM producers p WHERE p.producer_no = ANY (producer_nos) ORDER BY p.producer_no FOR UPDATE;
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    IF found_rows <> cardinality(producer_nos) THEN
        RAISE EXCEPTION 'a producer row is gone' USING ERRCODE = 'SG001';
    END IF;
    RETURN QUERY
        SELECT b.no, b.seq FROM unnest(batch_producers, batch_seqs) AS b(no, seq)
          JOIN producers p ON p.producer_no = b.no
         WHERE p.applied @> b.seq OR p.quarantined @> b.seq;
END $$;

-- `fold` holds per-producer and per-run columns as one jsonb (a few dozen values), totals and gauges as arrays.
-- Returns the already accounted seqs; empty means that everything was applied.
CREATE FUNCTION apply_fold(
    expected_generation bigint, consumer_name text, fold jsonb,
    batch_producers int[], batch_seqs bigint[],
    group_widths int[], group_rows int[],
    total_ids int[], total_layouts int[], total_shards smallint[], total_ns bigint[], total_sums float8[],
    total_les bigint[],
    gauge_ids int[], gauge_producers int[], gauge_values float8[], gauge_ms bigint[],
    touched int[]
) RETURNS TABLE (producer_no int, seq bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    run record;
    row_at int := 0;
    le_at int := 0;
    width int;
    size int;
BEGIN
    RETURN QUERY SELECT c.producer_no, c.seq FROM lock_and_check(
        expected_generation,
        ARRAY(SELECT (p ->> 'no')::int FROM jsonb_array_elements(fold -> 'producers') AS p),
        batch_producers, batch_seqs) AS c;
    IF FOUND THEN
        RETURN;
    END IF;

    FOR run IN SELECT r.* FROM jsonb_to_recordset(fold -> 'runs')
               AS r(no int, lo bigint, hi bigint, before bigint, after bigint, window_lo bigint, window_hi bigint)
               ORDER BY r.no, r.lo
    LOOP
        PERFORM book_run(run.no, run.lo, run.hi, run.before, run.after, run.window_lo, run.window_hi);
    END LOOP;

    UPDATE producers p SET
        applied = p.applied + n.applied::int8multirange,
        committed_events = p.committed_events + n.events,
        quarantined_events = p.quarantined_events + n.quarantined,
        duplicates = p.duplicates + n.duplicates,
        displaced = p.displaced + n.displaced,
        accepted = greatest(p.accepted, n.accepted),
        dropped = CASE WHEN n.accepted >= p.accepted AND n.accepted > 0 THEN n.dropped ELSE p.dropped END,
        clock_offset_us = CASE WHEN n.accepted > 0 THEN n.offset_us ELSE p.clock_offset_us END,
        clock_uncertainty_us = CASE WHEN n.accepted > 0 THEN n.uncertainty_us ELSE p.clock_uncertainty_us END,
        fin = p.fin OR n.fin,
        last_seen = now()
      FROM jsonb_to_recordset(fold -> 'producers')
        AS n(no int, applied text, events bigint, quarantined bigint, duplicates bigint, displaced bigint,
             accepted bigint, dropped jsonb, offset_us bigint, uncertainty_us bigint, fin boolean)
     WHERE p.producer_no = n.no;

    FOR i IN 1 .. coalesce(cardinality(group_widths), 0) LOOP
        width := group_widths[i];
        size := group_rows[i];
        PERFORM add_totals(total_ids[row_at + 1 : row_at + size], total_layouts[row_at + 1 : row_at + size],
                           total_shards[row_at + 1 : row_at + size], total_ns[row_at + 1 : row_at + size],
                           total_sums[row_at + 1 : row_at + size], width,
                           total_les[le_at + 1 : le_at + size * width]);
        row_at := row_at + size;
        le_at := le_at + size * width;
    END LOOP;

    INSERT INTO gauges AS g (series_id, producer_no, value, set_ms)
    SELECT s, p, v, ms FROM unnest(gauge_ids, gauge_producers, gauge_values, gauge_ms) AS u(s, p, v, ms)
     ORDER BY s, p
    ON CONFLICT (series_id, producer_no) DO UPDATE SET value = excluded.value, set_ms = excluded.set_ms
     WHERE g.set_ms <= excluded.set_ms;

    INSERT INTO commits (consumer, batches, events, series_ids)
    VALUES (consumer_name, cardinality(batch_seqs), (fold ->> 'events')::bigint, touched);
END $$;

-- Quarantines one decoded batch: accounts for its seq so that it is neither lost nor applied twice.
-- Returns false if the seq was accounted for already (a duplicate).
CREATE FUNCTION quarantine_batch(
    shard_no smallint, entry_id text, why text, about text, producer int, id uuid, batch_seq bigint,
    n_events bigint, before bigint, after bigint, window_s bigint, body_accepted bigint, body_dropped jsonb,
    raw bytea
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    p producers%ROWTYPE;
BEGIN
    SELECT * INTO STRICT p FROM producers WHERE producer_no = producer FOR UPDATE;
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
