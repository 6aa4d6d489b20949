"""The model check: the code that folds, commits and acknowledges, on simulated servers, in virtual time.

`python -m tests.model --schedules N [--seed S] [--mutant NAME]`. In: a seed. Out: how many distinct schedules ran, how
many states they reached, and, when a promise was broken, the shortest schedule that still breaks it.
Promise: nothing here opens a socket, starts a thread or reads a clock; the same seed does the same, everywhere.
"""
