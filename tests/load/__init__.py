"""Load: what holds for long, and what happens when it is too much.

`make soak` holds most of what can be drained, with a fault a minute; `make overload` sends three times as much as can
be. In: minutes. Out: a table and a picture for docs/reliability.md. A few seconds of each run in the suite.
"""
