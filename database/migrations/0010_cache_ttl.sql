-- Main schema only: lifetimes of cached keys: what each class has and should have, and every cycle that judged them.

CREATE TABLE cache_lifetimes (            -- one row per class of keys that was ever judged
    key_class text PRIMARY KEY,
    seen_at timestamptz NOT NULL,         -- newest cycle in which it had look-ups
    judged_to timestamptz,                -- up to when look-ups were judged: the next cycle begins there
    status text NOT NULL,                 -- insufficient_data, steady, change, held, unheard, undone, given_back
    detail text NOT NULL,
    current_s float8,                     -- what its caches said; null: nothing
    proposed_s float8,                    -- null: no other lifetime is proposed
    applied_s float8,                     -- what Redis shall hold; null: nothing, the class has its own lifetime
    is_ours boolean NOT NULL DEFAULT false,  -- whether Redis holds, or may still hold, a field we wrote
    published_at timestamptz,             -- since when Redis holds what it shall; null: not yet
    is_watched boolean NOT NULL DEFAULT false,  -- the next cycle with enough look-ups judges the newest change
    before_applied_s float8,              -- what to go back to if that was bad; null: its own lifetime
    baseline float8,                      -- seconds of recomputing per second before the change
    held_until timestamptz                -- not changed before, because a change was taken back
);

CREATE TABLE cache_ttl_cycles (           -- a slot that is here has been judged: begun again, it only publishes
    slot timestamptz PRIMARY KEY,
    ended_at timestamptz NOT NULL DEFAULT now(),
    outcome text NOT NULL,
    detail text NOT NULL,
    facts jsonb NOT NULL
);
