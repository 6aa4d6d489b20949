-- The checksums of batches that were applied lately: tells a batch that came again from another one under its seq.

CREATE TABLE checksums (                  -- one row per commit; three arrays side by side, one element per batch
    at timestamptz NOT NULL DEFAULT now(),
    producer_nos int[] NOT NULL,
    seqs bigint[] NOT NULL,
    checksums int[] NOT NULL              -- the first 32 bits of each batch's own
);
