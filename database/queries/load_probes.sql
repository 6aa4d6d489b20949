-- $1 key hashes: events committed so far of each probe series.
SELECT s.key, sum(t.n)::bigint AS n FROM series s JOIN totals t USING (series_id)
 WHERE s.key_hash = ANY ($1::uuid[]) GROUP BY s.key
