-- Main schema only: what the monitoring services keep beyond their first form.

-- A deploy teaches nothing of its own service's metrics; null: of any. The producers that tell of it retire in a week.
ALTER TABLE threshold_exclusions ADD COLUMN service text;
