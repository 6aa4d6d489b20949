-- First statement of a REPEATABLE READ transaction that reads parts and rollups together: it takes no snapshot
-- itself, and afterwards compaction cannot drop parts whose rollup rows the snapshot does not see.
LOCK TABLE parts IN ACCESS SHARE MODE
