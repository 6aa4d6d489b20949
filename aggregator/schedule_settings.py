"""Settings of the schedule: how often each job runs and how a run is judged late or dead.

Promise: frozen; a job named `x` takes its interval from `streamgauge_x_interval_s` where there is such a field.
"""

from pydantic import Field

from database.settings import ServiceSettings

_DAY_S = 86_400.0
_WEEK_S = 7 * _DAY_S


class ScheduleSettings(ServiceSettings):
    """Times in seconds. Slots are whole intervals since 1970, by the clock of the database."""

    streamgauge_upkeep_interval_s: float = Field(default=60.0, gt=0, le=3600)
    streamgauge_collect_metrics_interval_s: float = Field(default=300.0, gt=0, le=_WEEK_S)
    streamgauge_run_optimization_interval_s: float = Field(default=3600.0, gt=0, le=_WEEK_S)
    streamgauge_audit_interval_s: float = Field(default=3600.0, gt=0, le=_WEEK_S)
    streamgauge_recalibrate_thresholds_interval_s: float = Field(default=_DAY_S, gt=0, le=_WEEK_S)
    streamgauge_cache_ttl_interval_s: float = Field(default=_DAY_S / 4, gt=0, le=_WEEK_S)
    streamgauge_schedule_jitter_s: float = Field(default=5.0, ge=0, le=600)
    """A slot's run begins up to this late, by chance, so that not everything begins at the full hour."""
    streamgauge_schedule_misfire_grace_s: float = Field(default=_DAY_S, gt=0, le=_WEEK_S)
    """A slot that nobody began in this time is skipped, and its row says so."""
    streamgauge_schedule_coalesce: bool = True
    """Whether slots missed while no aggregator ran are made up by one run; else each has its own."""
    streamgauge_schedule_beat_s: float = Field(default=2.0, gt=0, le=60)
    streamgauge_schedule_stale_s: float = Field(default=15.0, gt=0, le=3600)
    """A run whose beat is older was left by a crash and is begun again by another aggregator."""
    streamgauge_schedule_wait_s: float = Field(default=30.0, gt=0, le=3600)
    """How long a job that judges data waits until everything that was in the streams is committed."""
