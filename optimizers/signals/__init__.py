"""Signals: what PerformanceOptimizer judges, a small file each, pure functions of numbers.

Promise: too little data is said by the signal it concerns; nothing here reads a clock, a server or a file.
"""
