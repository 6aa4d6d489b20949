-- $1 seconds: a batch that comes again later than this is a duplicate, whatever its checksum.
DELETE FROM checksums WHERE at < now() - make_interval(secs => $1::float8)
