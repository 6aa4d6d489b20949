SELECT producer_no, producer_id, applied, quarantined, top_seq, top_sealed, accepted, dropped::text AS dropped,
       committed_events, quarantined_events, duplicates
  FROM producers
