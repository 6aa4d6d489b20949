"""The reference application: a small real-estate assistant that really computes what it reports.

Owns its models, labelled data and settings; nothing of it is part of the client library.
"""
