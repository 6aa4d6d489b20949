{table}
 -- $1 series ids, $2 from, $3 to (exclusive), $4 width of the level above or null for all windows,
 -- $5 its windows to take, $6 windows to leave out: what one level gives to an answer.
 WHERE series_id = ANY ($1) AND window_start >= $2 AND window_start < $3
   AND ($4::interval IS NULL OR date_bin($4, window_start, 'epoch') = ANY ($5::timestamptz[]))
   AND NOT window_start = ANY ($6::timestamptz[])
