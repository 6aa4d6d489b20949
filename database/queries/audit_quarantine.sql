SELECT shard, stream_id, md5(payload) AS digest FROM quarantine
