"""Settings of the aggregator.

Promise: frozen; each value is checked at start and a bad one ends the process with exit code 2 and its name.
"""

from pydantic import Field

from aggregator.schedule_settings import ScheduleSettings
from optimizers.settings import OptimizerSettings


class AggregatorSettings(ScheduleSettings, OptimizerSettings):
    """What one aggregator needs to know. Times in seconds, sizes in bytes."""

    streamgauge_commit_interval_s: float = Field(default=0.5, gt=0, le=60)
    """How long batches are gathered before a commit, when there is no backlog."""
    streamgauge_commit_max_batches: int = Field(default=400, ge=1, le=10_000)
    """Under backlog a commit takes at most this many batches …"""
    streamgauge_commit_max_bytes: int = Field(default=16 << 20, ge=1 << 16, le=1 << 30)
    """… and at most this many bytes of them."""
    streamgauge_reclaim_idle_s: float = Field(default=30.0, gt=0, le=3600)
    """Pending entries idle for longer are taken over; keep it above the slowest commit."""
    streamgauge_reclaim_interval_s: float = Field(default=5.0, gt=0, le=3600)
    streamgauge_lease_s: float = Field(default=10.0, gt=0, le=600)
    streamgauge_heartbeat_s: float = Field(default=2.0, gt=0, le=60)
    streamgauge_replay_window_s: float = Field(default=1800.0, ge=0, le=7 * 86400)
    """Committed entries stay in the stream this long, for replay and for database failover."""
    streamgauge_stream_max_bytes: int = Field(default=256 << 20, ge=1 << 20)
    """Byte cap of one shard's stream: beyond it committed entries go first, then producers hold back."""
    streamgauge_trim_interval_s: float = Field(default=10.0, gt=0, le=3600)
    streamgauge_series_budget: int = Field(default=100_000, ge=1, le=10_000_000)
    """Active series a metric; the surplus goes to its overflow series."""
    streamgauge_load_runs: int = Field(default=50, ge=0, le=10_000)
    """Load-test runs kept at once, each in a schema of its own; batches of one more are quarantined."""
    streamgauge_crash_at: str = ""
    """Test hook: the named point at which the process kills itself."""
