"""What the services agree on: the batch, series identity, sketch, windows, stream names, self-metrics.

Imports none of ours; stdlib, msgspec and one zstd wheel only, so that a producer stays light.
"""
