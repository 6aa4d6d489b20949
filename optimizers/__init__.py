"""What the schedule runs: optimizers of the database, of performance, of thresholds and of cache lifetimes."""
