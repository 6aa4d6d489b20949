-- The checksums of batches that were applied lately: tells a batch that came again from another one under its seq.

CREATE TABLE checksums (                  -- one row per commit and run of consecutive seqs of a producer
    producer_no int NOT NULL,
    first_seq bigint NOT NULL,
    checksums int[] NOT NULL,             -- of each batch of the run, 32 bits of its own
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (producer_no, first_seq)  -- serves find_conflicts
);
