"""Benchmarks: each number beside its goal and its peer, measured in one run on a scratch stack.

Run as `python -m benchmarks [--full] [--only NAME]`. Nothing here is installed with the package.
"""
