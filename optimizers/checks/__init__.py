"""The checks of DatabaseOptimizer: one per file, listed here.

In: nothing. Out: CHECKS, in the order of the catalogue. Adding one: a file `<id>_<name>.py` with a frozen
dataclass, its SQL as database/queries/check_<id>_<name>.sql, an import and a line here, a row in
docs/database-optimizer.md, and a case that finds it beside one that stays silent.
"""

from typing import Final

from optimizers.check import Check
from optimizers.checks.i6_invalid_index import InvalidIndex

CHECKS: Final[tuple[type[Check], ...]] = (
    # Q: queries
    # I: indexes
    InvalidIndex,
    # B: bloat
    # V: vacuum
    # C: cache
    # K: connections
    # R: replication
    # S: structure
    # W: writing
    # G: settings
    # P: partitions
)
