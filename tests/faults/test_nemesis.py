"""A seeded schedule of faults, overlapping, against the whole pipeline: the account holds at the end."""

from pathlib import Path

import pytest

from streamgauge.embedded import PostgresServer, RedisServer
from tests.faults.bench import Bench
from tests.faults.nemesis import LINKS, MODES, again, play, read_arguments, say, schedule, spool_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SEED = 7
LENGTH_S = 12.0


def test_a_seed_is_a_schedule() -> None:
    """The same one each time, another one for another seed, and all is healed before the end."""
    assert schedule(SEED, 60) == schedule(SEED, 60) != schedule(SEED + 1, 60)
    assert all(fault.at_s + fault.lasts_s <= 60 for fault in schedule(SEED, 60))


@pytest.mark.parametrize("minutes", [1.0, 0.33, 1 / 3, 7 / 60])
def test_the_command_of_a_failing_run_repeats_its_schedule(minutes: float) -> None:
    """As `make` hands it on."""
    command = dict(word.split("=") for word in again(SEED, minutes).split()[2:])
    args = read_arguments(["--seed", command["SEED"], "--minutes", command["MINUTES"]])
    assert schedule(args.seed, args.minutes * 60) == schedule(SEED, minutes * 60)
    assert spool_of(args.seed) == spool_of(SEED)


def test_every_kind_of_fault_is_drawn() -> None:
    drawn = {(fault.what, fault.target) for seed in range(30) for fault in schedule(seed, 60)}
    assert drawn >= {(mode, link) for mode in MODES for link in LINKS}
    assert drawn >= {(what, "redis") for what in ("kill", "stop", "maxmemory")}
    assert drawn >= {(what, target) for what in ("kill", "stop") for target in ("postgres", "exporter", "emitter")}
    assert drawn >= {(what, "aggregator") for what in ("kill", "stop", "crash")}


def test_nothing_is_lost_and_nothing_counts_twice_under_a_seeded_schedule(
    tmp_path: Path, dsn: str, redis_url: str, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    """A longer one: `make faults SEED=7 MINUTES=5`."""
    with Bench(tmp_path, dsn, redis_url, spool=spool_of(SEED)) as bench:
        outcome = play(bench, redis_server, postgres_server, SEED, LENGTH_S)
    say(str(outcome))
    assert outcome.faults == len(schedule(SEED, LENGTH_S)) > 5
