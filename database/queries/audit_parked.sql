SELECT producer_id, seq, events FROM parked
