"""Settings of the optimizers.

Promise: frozen; each value is checked at start and a bad one ends the process with exit code 2 and its name.
"""

from database.settings import PostgresSettings, RedisSettings, RetentionSettings


class OptimizerSettings(PostgresSettings, RedisSettings, RetentionSettings):
    """What the scheduled jobs need to know. Times in seconds unless the name says otherwise."""
