-- {schema} of HypoPG: forget the indexes of this session.
SELECT {schema}.hypopg_reset()
