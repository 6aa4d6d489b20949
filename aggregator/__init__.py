"""The aggregator: consume -> fold -> commit -> ack, on one stream per shard, by any number of replicas."""
