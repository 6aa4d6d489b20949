"""The checks of DatabaseOptimizer: one per file, listed here.

In: nothing. Out: CHECKS, in the order of the catalogue. Adding one: a file `<id>_<name>.py` with a frozen
dataclass, its SQL as database/queries/check_<id>_<name>.sql, an import and a line here, a row in
docs/database-checks.md, and a case that finds it beside one that stays silent.
"""

from typing import Final

from optimizers.check import Check
from optimizers.checks.b1_dead_tuples import DeadTuples
from optimizers.checks.b2_table_bloat import TableBloat
from optimizers.checks.b3_index_bloat import IndexBloat
from optimizers.checks.c1_cache_hits import CacheHits
from optimizers.checks.g1_settings import Settings
from optimizers.checks.i1_missing_index import MissingIndex
from optimizers.checks.i2_proved_index import ProvedIndex
from optimizers.checks.i3_foreign_key_index import ForeignKeyIndex
from optimizers.checks.i4_unused_index import UnusedIndex
from optimizers.checks.i5_duplicate_index import DuplicateIndex
from optimizers.checks.i6_invalid_index import InvalidIndex
from optimizers.checks.i7_low_use_index import LowUseIndex
from optimizers.checks.k1_connections import Connections
from optimizers.checks.k2_idle_in_transaction import IdleInTransaction
from optimizers.checks.k3_oversized_pool import OversizedPool
from optimizers.checks.k4_blocked import Blocked
from optimizers.checks.k5_session_ends import SessionEnds
from optimizers.checks.p1_partitions_ahead import PartitionsAhead
from optimizers.checks.p2_default_partition import DefaultPartition
from optimizers.checks.p3_retention import Retention
from optimizers.checks.p4_partition_size import PartitionSize
from optimizers.checks.q1_slow_queries import SlowQueries
from optimizers.checks.q2_query_regression import QueryRegression
from optimizers.checks.q3_statement_table import StatementTable
from optimizers.checks.q4_spill_to_disk import SpillToDisk
from optimizers.checks.r1_replica_lag import ReplicaLag
from optimizers.checks.r2_slots import Slots
from optimizers.checks.s1_sequences import Sequences
from optimizers.checks.s2_invalid_constraints import InvalidConstraints
from optimizers.checks.v1_stale_statistics import StaleStatistics
from optimizers.checks.v2_stale_vacuum import StaleVacuum
from optimizers.checks.v3_never_frozen import NeverFrozen
from optimizers.checks.v4_default_autovacuum import DefaultAutovacuum
from optimizers.checks.v5_wraparound import Wraparound
from optimizers.checks.v6_xmin_horizon import XminHorizon
from optimizers.checks.w1_forced_checkpoints import ForcedCheckpoints

CHECKS: Final[tuple[type[Check], ...]] = (
    # Q: queries
    SlowQueries,
    QueryRegression,
    StatementTable,
    SpillToDisk,
    # I: indexes
    MissingIndex,
    ProvedIndex,
    ForeignKeyIndex,
    UnusedIndex,
    DuplicateIndex,
    InvalidIndex,
    LowUseIndex,
    # B: bloat
    DeadTuples,
    TableBloat,
    IndexBloat,
    # V: vacuum
    StaleStatistics,
    StaleVacuum,
    NeverFrozen,
    DefaultAutovacuum,
    Wraparound,
    XminHorizon,
    # C: cache
    CacheHits,
    # K: connections
    Connections,
    IdleInTransaction,
    OversizedPool,
    Blocked,
    SessionEnds,
    # R: replication
    ReplicaLag,
    Slots,
    # S: structure
    Sequences,
    InvalidConstraints,
    # W: writing
    ForcedCheckpoints,
    # G: settings
    Settings,
    # P: partitions
    PartitionsAhead,
    DefaultPartition,
    Retention,
    PartitionSize,
)
