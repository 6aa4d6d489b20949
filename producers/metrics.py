"""Metrics: what an application declares and emits to.

In: definitions and emits. Out: lists of raw values, one a series, emptied by the drainer.
Promise: emitting through a bound child is one list append: no lock, no check, no I/O, no exception. Names, label
rules and calls are those of prometheus_client.
"""

import inspect
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, ParamSpec, TypeVar, cast

from contract.metric import DEFAULT_BUCKETS, Kind, Merge, MetricDef, check_metric
from contract.reasons import Dropped
from contract.series import OVERFLOW_LABELS, SeriesError, check_label_name, check_metric_name, series_key

_MODES: Final = {mode.value: mode for mode in Merge}

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound="Child")

Raw = Any
"""An emitted value as it was given: whatever the caller passed; the drainer judges it."""


class Child:
    """One series of one metric. `values` is emptied in place and never replaced: emitters hold its `append`."""

    __slots__ = ("drop", "key", "metric", "values")

    def __init__(self, metric: MetricDef, key: bytes, drop: Dropped | None = None) -> None:
        self.metric = metric
        self.key = key
        self.drop = drop
        """Set: everything emitted here is dropped for this reason."""
        self.values: list[Raw] = []


class Change:
    """A relative change of a gauge, as it was asked for."""

    __slots__ = ("amount", "sign")

    def __init__(self, amount: Raw, sign: int) -> None:
        self.amount = amount
        self.sign = sign


ONE: Final = 1.0
UP: Final = Change(ONE, 1)
DOWN: Final = Change(ONE, -1)
"""Changes by one, made once: what counts requests up and down makes no object each time."""


class CounterChild(Child):
    """A bound counter."""

    __slots__ = ("inc", "one")

    def __init__(self, metric: MetricDef, key: bytes, drop: Dropped | None = None) -> None:
        super().__init__(metric, key, drop)
        append = self.values.append
        self.one: Callable[[], None] = partial(append, ONE)
        """Add one, without a Python frame: where each request pays for it."""

        def inc(amount: float = 1.0) -> None:
            append(amount)

        self.inc = inc
        """Add `amount` (finite, not negative)."""


class GaugeChild(Child):
    """A bound gauge."""

    __slots__ = ("down", "set", "up")

    def __init__(self, metric: MetricDef, key: bytes, drop: Dropped | None = None) -> None:
        super().__init__(metric, key, drop)
        self.set: Callable[[float], None] = self.values.append
        """Set the value (finite)."""
        self.up: Callable[[], None] = partial(self.values.append, UP)
        self.down: Callable[[], None] = partial(self.values.append, DOWN)
        """Raise and lower by one, without a Python frame."""

    def inc(self, amount: float = ONE) -> None:
        """Raise the value by `amount`."""
        self.values.append(UP if amount is ONE else Change(amount, 1))

    def dec(self, amount: float = ONE) -> None:
        """Lower the value by `amount`."""
        self.values.append(DOWN if amount is ONE else Change(amount, -1))

    def set_to_current_time(self) -> None:
        """Set to the current Unix time in seconds."""
        self.values.append(time.time())


class HistogramChild(Child):
    """A bound histogram."""

    __slots__ = ("observe",)

    def __init__(self, metric: MetricDef, key: bytes, drop: Dropped | None = None) -> None:
        super().__init__(metric, key, drop)
        self.observe: Callable[[float], None] = self.values.append
        """Add one sample (finite)."""

    def time(self) -> "Timer":
        """Return a context manager and decorator that observes seconds."""
        return Timer(lambda: self.observe)


class Timer:
    """Observes how long its block, function or coroutine function took, in seconds."""

    def __init__(self, observe: Callable[[], Callable[[float], None]]) -> None:
        self._observe = observe
        self._starts: list[float] = []

    def __enter__(self) -> "Timer":
        self._starts.append(time.perf_counter())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._observe()(time.perf_counter() - self._starts.pop())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Wrap a function; each call has a start of its own, so that threads and recursion do not mix."""
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def timed_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                with Timer(self._observe):
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", timed_coroutine)

        @wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            with Timer(self._observe):
                return function(*args, **kwargs)

        return timed


class Family(Generic[C]):
    """A metric and its children; base of the three public kinds."""

    child_type: ClassVar[type[Child]]

    def __init__(self, definition: MetricDef, labelnames: Sequence[str], client: "Registry | None") -> None:
        self.definition = check_metric(definition)
        self.labelnames = tuple(check_label_name(name) for name in labelnames)
        if len(set(self.labelnames)) != len(self.labelnames):
            raise SeriesError(f"{definition.name} names a label twice")
        self._client = client if client is not None else default_registry()
        self._lock = threading.Lock()
        self._first: Family[C] = self
        """The family that declared this name first; its lock serves all, so that a fork renews just that one."""
        self._children: dict[tuple[Any, ...], C] = {}
        self._keys: dict[bytes, C] = {}
        self._refused: dict[Dropped, C] = {}
        joined = self._client.declare(self)
        if joined is not self:
            self._first, self._refused = joined, joined._refused
            self._children, self._keys = joined._children, joined._keys

    if not TYPE_CHECKING:  # or every misspelt attribute would pass the type checker

        def __getattr__(self, name: str) -> Any:
            """Say what is missing where a metric with labels is emitted to; reached only when nothing has the name."""
            names = self.__dict__.get("labelnames")
            if names and not name.startswith("_") and hasattr(self.child_type, name):
                full_name, labels = self.definition.name, ", ".join(names)
                raise AttributeError(f"{full_name} has labels {labels}: call labels() first", name=name, obj=self)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def labels(self, *values: Any, **named: Any) -> C:
        """Return the child of these label values (made at first use); keep it where you emit often.

        ValueError if the number or names of the labels are wrong. Bad label *values* never raise: what is emitted
        to that child is dropped and counted.
        """
        if not named:
            try:
                return self._children[values]  # 30 ns less than `get`
            except (KeyError, TypeError):  # TypeError: an unhashable value; its text is what counts
                pass
        return self._make(self._ordered(values, named))

    def _ordered(self, values: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        if named:
            if values or set(named) != set(self.labelnames):
                raise ValueError(f"{self.definition.name} has the labels {self.labelnames}, got {sorted(named)}")
            return tuple(named[name] for name in self.labelnames)
        if len(values) != len(self.labelnames):
            raise ValueError(f"{self.definition.name} has {len(self.labelnames)} labels, got {len(values)} values")
        return values

    def _make(self, values: tuple[Any, ...]) -> C:
        self._client.ensure_running()
        try:
            # Only texts are keys of the look-up: 1, 1.0 and True are equal but print differently.
            texts = tuple(map(str, values))
            child = self._children.get(texts)
            if child is not None:
                return child
            key = series_key(self.definition.name, list(zip(self.labelnames, texts, strict=True)))
        except Exception:  # noqa: BLE001
            # Whatever `str` of a caller's object raises must not reach the request.
            return self._refuse(Dropped.BAD_LABEL)
        with self._first._lock:
            child = self._keys.get(key)
            if child is None:
                if len(self._keys) >= self._client.max_series_per_metric():
                    return self._surplus()
                child = self._keys[key] = self._new(key)
            self._children[texts] = child
        return child

    def _surplus(self) -> C:
        if self.definition.kind is Kind.GAUGE:
            return self._refuse(Dropped.SERIES_LIMIT)
        key = series_key(self.definition.name, OVERFLOW_LABELS)
        if key not in self._keys:
            self._keys[key] = self._new(key)
        return self._keys[key]

    def _refuse(self, reason: Dropped) -> C:
        if reason not in self._refused:
            self._refused[reason] = self._new(b"", reason)
        return self._refused[reason]

    def _new(self, key: bytes, drop: Dropped | None = None) -> C:
        child = cast("C", self._client.make(self.child_type, self.definition, key, drop))
        self._client.add(child)
        return child

    def after_fork(self) -> None:
        """Make a lock that no thread of the parent holds."""
        self._lock = threading.Lock()


class Counter(Family[CounterChild]):
    """A value that only grows. The name ends in `_total`; it is added where it is missing."""

    child_type = CounterChild
    inc: Callable[..., None]

    def __init__(
        self, name: str, documentation: str = "", labelnames: Sequence[str] = (), *, registry: "Registry | None" = None
    ) -> None:
        name = check_metric_name(name).removesuffix("_total") + "_total"
        super().__init__(MetricDef(name, Kind.COUNTER, documentation), labelnames, registry)
        if not labelnames:
            self.inc = self.labels().inc


class Gauge(Family[GaugeChild]):
    """A value that goes up and down. `merge` says how replicas become one: sum min max mean last all.

    `live=True` leaves out producers whose heartbeat is not current.
    """

    child_type = GaugeChild
    set: Callable[[float], None]
    inc: Callable[..., None]
    dec: Callable[..., None]

    def __init__(
        self,
        name: str,
        documentation: str = "",
        labelnames: Sequence[str] = (),
        merge: str = "last",
        live: bool = False,
        *,
        registry: "Registry | None" = None,
    ) -> None:
        definition = MetricDef(name, Kind.GAUGE, documentation, merge=_merge_of(name, merge), live=live)
        super().__init__(definition, labelnames, registry)
        if not labelnames:
            child = self.labels()
            self.set, self.inc, self.dec = child.set, child.inc, child.dec


def _merge_of(name: str, mode: str) -> Merge:
    if mode in _MODES:
        return _MODES[mode]
    plain = mode.removeprefix("live")
    plain = "last" if plain == "mostrecent" else plain
    hint = ""
    if plain in _MODES:
        hint = f'; write merge="{plain}"' + (", live=True" if mode.startswith("live") else "")
    raise ValueError(f"merge of {name} is {mode!r}: {', '.join(_MODES)} are allowed{hint}")


class Histogram(Family[HistogramChild]):
    """Samples: exact counts at `buckets` (upper bounds, +Inf implied) and a sketch for any quantile."""

    child_type = HistogramChild
    observe: Callable[[float], None]

    def __init__(
        self,
        name: str,
        documentation: str = "",
        labelnames: Sequence[str] = (),
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        unit: str = "",
        *,
        registry: "Registry | None" = None,
    ) -> None:
        bounds = tuple(float(b) for b in buckets if b != float("inf"))
        super().__init__(MetricDef(name, Kind.HISTOGRAM, documentation, unit, bounds), labelnames, registry)
        if not labelnames:
            self.observe = self.labels().observe

    def time(self) -> Timer:
        """Return a context manager and decorator that observes seconds (a histogram without labels)."""
        if self.labelnames:
            _ = self.observe  # says what is missing, before the block or the function runs
        return Timer(lambda: self.observe)


class Info(Family[GaugeChild]):
    """Constant facts about the application, as labels of a gauge that is 1."""

    child_type = GaugeChild

    def __init__(
        self, name: str, documentation: str, facts: Mapping[str, str], *, registry: "Registry | None" = None
    ) -> None:
        name = check_metric_name(name).removesuffix("_info") + "_info"
        super().__init__(MetricDef(name, Kind.GAUGE, documentation, merge=Merge.MAX), list(facts), registry)
        self.labels(*facts.values()).set(1)


class Registry:
    """What a family needs of its client: a place to register, a guard, and threads that run."""

    def __init__(self) -> None:
        self.families: dict[str, Family[Any]] = {}
        self.children: list[Child] = []

    def declare(self, family: Family[Any]) -> Family[Any]:
        """Return the family of this name; ValueError if it is declared differently already."""
        known = self.families.setdefault(family.definition.name, family)
        if (known.definition, known.labelnames) != (family.definition, family.labelnames):
            raise ValueError(f"{family.definition.name} is declared already, with another definition")
        return known

    def make(self, kind: type[Child], metric: MetricDef, key: bytes, drop: Dropped | None) -> Child:
        """Return a new child."""
        return kind(metric, key, drop)

    def add(self, child: Child) -> None:
        """Let the drainer see a child."""
        self.children.append(child)

    def max_series_per_metric(self) -> int:
        """Return the guard on live series."""
        return 10_000

    def ensure_running(self) -> None:
        """Start what empties the children."""


_default: Final[list[Callable[[], Registry]]] = []


def default_registry() -> Registry:
    """Return the client that metrics use when none is named."""
    return _default[0]()


def set_default(factory: Callable[[], Registry]) -> None:
    """Name what `default_registry` returns."""
    _default[:] = [factory]
