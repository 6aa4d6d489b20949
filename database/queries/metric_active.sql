-- $1 metric_id: series that count against its budget; its row stays locked until the admission ends
SELECT active FROM metrics WHERE metric_id = $1 FOR UPDATE
