"""Components: one small file per kind of thing that the monitor looks at.

In: Sources. Out: probes, each of which returns Components. Promise: a reason never holds an address's user or password.
"""
