"""The exporter: /metrics, health, JSON and the dashboard page, from one snapshot of PostgreSQL at a time.

Promise: a served counter never falls; a scrape costs what changed since the last one.
"""
