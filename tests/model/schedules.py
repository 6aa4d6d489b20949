"""Schedules: drawn from a seed, run against a world, and shortened when they break a promise.

In: a seed, or actions. Out: what ran, which states it reached, what it broke. Promise: a seed is a schedule for ever
(of one version of the code), and a schedule cut short still runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from tests.model.actions import Action, Simulation
from tests.model.oracle import Broken
from tests.model.tasks import CLOCK
from tests.model.world import BEGIN_S, Profile

STEPS: Final = (40, 110)
"""Least and most actions that are chosen; then everything is healed and drained."""
CALM: Final = (40, 80, 110)
SHRINK_STEPS: Final = 100_000
"""A schedule that never comes to rest takes thousands at each try."""
PAUSES_S: Final = (0.1, 0.5, 2.0, 6.0, 13.0, 45.0)
"""From less than a flush to more than the claim time."""

Draw = Callable[[Random, Simulation], Action | None]


@dataclass
class Ran:
    """One schedule that was run."""

    profile: Profile
    actions: list[Action] = field(default_factory=list[Action])
    states: list[int] = field(default_factory=list[int])
    broken: Broken | None = None
    steps: int = 0

    @property
    def key(self) -> int:
        """Tells schedules apart."""
        return hash((self.profile, tuple(self.actions)))


def draw_profile(draw: Random) -> Profile:
    """Choose what a world is made of."""
    is_synchronous = draw.random() < 0.3
    return Profile(
        aggregators=draw.choice((1, 2, 2)),
        producers=draw.choice((1, 2)),
        flushes=draw.randint(3, 8),
        is_synchronous=is_synchronous,
        has_standby=is_synchronous or draw.random() < 0.8,
        cap_entries=draw.choice((40, 40, 6)),
        poison=draw.random() < 0.1,
        calm_steps=draw.choice(CALM),
        ends_quietly=draw.random() < 0.1,
    )


def _name(draw: Random, world: Simulation, kinds: str) -> str:
    return draw.choice([name for name in world.services if name[0] in kinds])


def _spoil(
    kind: str, *more: Callable[[Random], Any], of: Callable[[Simulation], list[str]] = Simulation.breakable
) -> Draw:
    def chosen(draw: Random, world: Simulation) -> Action | None:
        names = of(world)
        return (kind, draw.choice(names), *(each(draw) for each in more)) if names else None

    return chosen


def _of(kind: str, *more: Callable[[Random], Any]) -> Draw:
    return lambda draw, world: (kind, *(each(draw) for each in more))


def _one_of(*values: Any) -> Callable[[Random], Any]:
    return lambda draw: draw.choice(values)


def _under(limit: int) -> Callable[[Random], int]:
    return lambda draw: draw.randrange(limit)


FAULTS: Final[dict[str, Draw]] = {
    "cut": _spoil("cut", _under(4)),
    "lose": _spoil("lose"),
    "die": _spoil("die"),
    "error": _spoil("error", _under(4)),
    "abort": _spoil("abort", of=lambda world: world.commits()),
    "kill": lambda draw, world: ("kill", _name(draw, world, "aaap"), draw.randrange(3)),
    "stop": lambda draw, world: ("stop", _name(draw, world, "aapx"), draw.choice(PAUSES_S)),
    "redis_kill": _of("redis_kill", _under(12)),
    "redis_failover": _of("redis_failover", _under(40)),
    "redis_down": _of("redis", _one_of(False)),
    "redis_full": _of("redis_full", _one_of(True)),
    "redis_clock": _of("redis_clock", _one_of(-3600.0, -5.0, 5.0, 3600.0)),
    "again": _of("again", _under(50)),
    "junk": _of("junk", _under(3)),
    "pg_restart": _of("pg", _one_of(False)),
    "pg_failover": _of("pg_failover", _one_of(0, 0, 32)),
    "pg_backend": _of("pg_backend", _under(8)),
    "pg_clock": _of("pg_clock", _one_of(-3600.0, 3600.0)),
    "cancel": lambda draw, world: ("cancel",) if world.waits_for_standby() else None,
    "generation": _of("generation"),
}
"""What may go wrong. Each schedule takes some of them."""


class Drawing:
    """Draws the next action of one schedule."""

    def __init__(self, seed: int) -> None:
        self._draw = Random(seed)
        self.profile = draw_profile(self._draw)
        self.length = self._draw.randint(*STEPS)
        kinds = sorted(FAULTS)
        self._faults = self._draw.sample(kinds, self._draw.randint(1, 6))
        if self._draw.random() < 0.4:
            self._faults.append("pg_failover")
        self._ends_commits = [kind for kind in ("abort", "cancel") if self._draw.random() < 0.3]
        """What befalls a COMMIT whenever there is one: by chance alone faults would miss it."""
        self._standby = self._draw.choice((0.02, 0.1, 0.5))
        """How fast the standby follows."""
        self._fault_rate = self._draw.choice((0.02, 0.06, 0.15))
        self._pause_rate = self._draw.choice((0.0, 0.01, 0.04))
        self._weights: dict[str, float] = {}

    def next(self, world: Simulation) -> Action:
        """Return an action."""
        draw = self._draw
        chance = draw.random()
        if chance < self._fault_rate:
            action = FAULTS[draw.choice(self._faults)](draw, world)
            if action is not None:
                return action
        elif chance < self._fault_rate + self._pause_rate:
            return ("time", draw.choice(PAUSES_S))
        return self._go_on(world)

    def _go_on(self, world: Simulation) -> Action:
        """Let somebody go on; what was taken away comes back in the same way."""
        actions: list[Action] = [("run", task.name) for task in world.ready()]
        weights = [self._weight(action[1]) for action in actions]
        if not actions:
            actions, weights = [("wait",)], [1.0]
        for action, weight, is_open in (
            (
                ("replicate", 1),
                self._standby,
                world.store.standby is not None and world.store.standby < len(world.store.wal),
            ),
            (("cancel",), 0.3, "cancel" in self._ends_commits and world.waits_for_standby()),
            (("late", 0), 0.3, bool(world.late)),
            (("redis", True), 0.2, not world.redis.is_up),
            (("redis_full", False), 0.1, world.redis.is_full),
            (("pg", True), 0.2, not world.store.is_up),
            *((("start", name), 0.1, True) for name, s in world.services.items() if not s.process.is_alive),
        ):
            if is_open:
                actions.append(action)
                weights.append(weight)
        if "abort" in self._ends_commits:
            names = world.commits()
            actions += [("abort", name) for name in names]
            weights += [0.2] * len(names)
        return self._draw.choices(actions, weights)[0]

    def _weight(self, name: str) -> float:
        """Some tasks are slower than others, for a whole schedule."""
        if name not in self._weights:
            self._weights[name] = self._draw.choice((0.1, 1.0, 1.0, 4.0))
        return self._weights[name]


def run_seed(seed: int) -> Ran:
    """Run the schedule of a seed."""
    drawing = Drawing(seed)
    ran = Ran(drawing.profile)
    world = None
    try:
        world = Simulation(ran.profile)
        for _ in range(drawing.length):
            action = drawing.next(world)
            ran.actions.append(action)
            world.act(action)
            ran.states.append(world.state())
        _end(world, ran)
    except Broken as broken:
        ran.broken = broken
    return ran


def _end(world: Simulation, ran: Ran) -> None:
    world.heal()
    ran.steps = len(ran.actions) + world.drain()
    if ran.profile.ends_quietly and world.act(("pg_failover", 0)):
        ran.steps += world.drain()
    world.check_rest()


def replay(profile: Profile, actions: Sequence[Action]) -> Ran:
    """Run given actions; those that do not apply are left out."""
    ran = Ran(profile)
    world = None
    try:
        world = Simulation(profile)
        for action in actions:
            if world.act(action):
                ran.actions.append(action)
        _end(world, ran)
    except Broken as broken:
        ran.broken = broken
        ran.steps = world.steps if world is not None else 0
    return ran


def shrink(ran: Ran, steps: int = SHRINK_STEPS) -> Ran:
    """Return a shorter schedule that breaks the same promise."""
    assert ran.broken is not None
    best, size = ran, max(1, len(ran.actions) // 2)
    while steps > 0:
        at, before = 0, len(best.actions)
        while at < len(best.actions) and steps > 0:
            cut = replay(best.profile, [*best.actions[:at], *best.actions[at + size :]])
            steps -= cut.steps
            if cut.broken is not None and cut.broken.promise == ran.broken.promise:
                best = cut
            else:
                at += size
        if size == 1 and len(best.actions) == before:
            break
        size = max(1, size // 2)
    return best


def describe(ran: Ran) -> list[str]:
    """Say a schedule line by line: each action, and what was waited for."""
    lines = [str(ran.profile)]
    try:
        world = Simulation(ran.profile)
        for action in ran.actions:
            said = " ".join(map(str, action))
            task = world.find(action[1]) if action[0] in ("run", "cut", "lose", "die", "error", "abort") else None
            lines.append(
                f"{CLOCK.now - BEGIN_S:8.3f} s  {said:<28}{task.request.text() if task and task.request else ''}"
            )
            world.act(action)
    except Broken:
        return lines
    return [*lines, "          healed and drained"]
