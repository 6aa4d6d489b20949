"""The jobs of this package, for the schedule to run.

Out: JOBS. Adding a job: its module makes a Job, a line here names it. An interval here is the default; the setting
STREAMGAUGE_<NAME>_INTERVAL_S, where there is one, replaces it.
"""

from typing import Final

from optimizers import cache_ttl_optimizer, database_optimizer, performance_optimizer, recalibration
from optimizers.job import Job

JOBS: Final[tuple[Job, ...]] = (
    database_optimizer.JOB,
    recalibration.JOB,
    performance_optimizer.JOB,
    cache_ttl_optimizer.JOB,
)
