SELECT service, producers, accepted, dropped::text AS dropped, committed_events, quarantined_events, lost_events,
       duplicates
  FROM retired
