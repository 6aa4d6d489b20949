-- Entries that ended who decoded them: nobody should try again.
SELECT shard, stream_id FROM quarantine WHERE reason = $1
