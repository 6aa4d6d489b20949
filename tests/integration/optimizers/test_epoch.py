"""Statistics that were lost or reset are another epoch: nothing is compared across it."""

import asyncpg

from optimizers.target_look import Facts, read_facts
from tests.debian_postgres import DebianPostgres
from tests.servers import Servers


async def facts_of(dsn: str) -> Facts:
    connection = await asyncpg.connect(dsn)
    try:
        return await read_facts(connection)
    finally:
        await connection.close()


async def test_restart_keeps_the_epoch_and_a_crash_ends_it_on_18(servers: Servers) -> None:
    """A crash loses statistics without a word; a clean restart keeps them."""
    server = servers.postgres()
    before = await facts_of(server.dsn("postgres"))
    server.restart()
    restarted = await facts_of(server.dsn("postgres"))
    server.kill()
    server.open()
    crashed = await facts_of(server.dsn("postgres"))
    assert (restarted.epoch == before.epoch, crashed.epoch == before.epoch) == (True, False)
    assert crashed.stats_age_s is not None
    assert crashed.stats_age_s < 60


async def test_restart_keeps_the_epoch_and_a_crash_ends_it_on_15(postgres_15: DebianPostgres) -> None:
    """The same on the oldest version."""
    before = await facts_of(postgres_15.dsn())
    postgres_15.close()
    postgres_15.open()
    restarted = await facts_of(postgres_15.dsn())
    postgres_15.kill()
    postgres_15.open()
    crashed = await facts_of(postgres_15.dsn())
    assert (restarted.epoch == before.epoch, crashed.epoch == before.epoch) == (True, False)


async def test_reset_ends_the_epoch_of_its_database_only(ill_dsn: str, servers: Servers) -> None:
    """pg_stat_reset() of somebody else."""
    connection = await asyncpg.connect(ill_dsn)
    try:
        before = (await read_facts(connection)).epoch
        assert (await read_facts(connection)).epoch == before
        await connection.execute("SELECT pg_stat_reset()")
        after = await read_facts(connection)
    finally:
        await connection.close()
    assert after.epoch != before
    assert after.stats_age_s is not None
    assert after.stats_age_s < 60
