"""Hardening: a list of rules about how the deployment is configured, checked on its files and on what runs.

Promise: a rule that could not be looked at says `skip` and why, which is never a pass; a check that breaks says
`error`.
"""
