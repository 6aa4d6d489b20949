-- Upkeep: what compaction, roll-ups and retention need inside PostgreSQL.

-- Drops a partition. DROP locks the parent ACCESS EXCLUSIVE: it waits for every writer, and every writer queues
-- behind it. So it asks for at most 100 ms at a time and lets the queue pass in between; after 5 s it gives up.
CREATE FUNCTION drop_partition(partition text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    before text := current_setting('lock_timeout');
BEGIN
    IF NOT EXISTS (SELECT FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
                    WHERE i.inhrelid = to_regclass(quote_ident(partition)) AND p.relnamespace = to_regnamespace(
                          quote_ident(current_schema())) AND p.relname IN ('parts', 'rollup_10s', 'rollup_1m', 'rollup_1h'))
    THEN
        RAISE EXCEPTION '% is no partition', partition USING ERRCODE = 'undefined_table';
    END IF;
    PERFORM set_config('lock_timeout', '100ms', true);
    FOR i IN 1 .. 25 LOOP
        BEGIN
            EXECUTE format('DROP TABLE %I', partition);
            PERFORM set_config('lock_timeout', before, true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
    RAISE EXCEPTION 'partition % is in use', partition USING ERRCODE = 'lock_not_available';
END $$;

-- A roll-up reads and deletes the marks of its level; without it each run would scan all marks.
CREATE INDEX dirty_level ON dirty (level, window_start);

-- A roll-up reads all rows of a few windows; the primary key serves one series over time. Equal values are
-- stored once, so that this costs about 7 bytes a row.
CREATE INDEX rollup_10s_window ON rollup_10s (window_start);
CREATE INDEX rollup_1m_window ON rollup_1m (window_start);
CREATE INDEX rollup_1h_window ON rollup_1h (window_start);

-- Makes one partition unless it exists, one session at a time. ATTACH takes SHARE UPDATE EXCLUSIVE on the parent,
-- so commits go on; CREATE TABLE … PARTITION OF would take ACCESS EXCLUSIVE.
CREATE FUNCTION make_partition(parent text, name text, start_s bigint, end_s bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext(current_schema()), 4);
    IF to_regclass(quote_ident(name)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS)', name, parent);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name,
                   to_timestamp(start_s), to_timestamp(end_s));
END $$;
