"""Pure-ASGI middleware and lifespan helper: an existing FastAPI or Starlette app gets its HTTP metrics by one line.

In: an ASGI app. Out: counters, histograms and in-progress gauges of its requests and WebSocket sessions.
Promise: label values are bounded whatever clients send (route templates, known methods, known codes); a request
costs a handful of list appends and never a `labels()` once its (method, route, status) was seen; messages and
exceptions pass unchanged.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from time import perf_counter
from typing import Any, Final, NamedTuple, TypeVar, cast

import producers
from producers.loop_lag import watching
from producers.metrics import Counter, Gauge, Histogram
from producers.route_template import route_template

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
App = TypeVar("App")
Lifespan = Callable[[App], AbstractAsyncContextManager[Any]]

OTHER: Final = "_OTHER"
"""Methods and codes outside the standards, as OpenTelemetry's conventions name them."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"})
BODYLESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "CONNECT"})

CLIENT_CLOSED: Final = 499
"""The client went away before a status was sent; nginx's number for it."""

LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZE_BUCKETS: Final = (100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0)
SESSION_BUCKETS: Final = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)

ABNORMAL: Final = 1006
"""WebSocket: the connection ended without a close frame (RFC 6455, section 7.4.1)."""

STOP_DEADLINE_S: Final = 5.0


class Emitters(NamedTuple):
    """The bound emitters of one (method, route, status)."""

    answered: Callable[[], None]
    duration: Callable[[float], None]
    request_size: Callable[[float], None] | None
    """None where the method has no body."""
    response_size: Callable[[float], None]


def _nothing(_: float = 0.0) -> None:
    """Take what an excluded route would have emitted."""


def _zero(observe: Callable[[float], None], _: float) -> None:
    observe(0.0)


SILENT: Final = Emitters(_nothing, _nothing, None, _nothing)


class HttpMetrics:
    """The metrics of one process's HTTP side, shared by every middleware that is given this object."""

    def __init__(self, release: str = "") -> None:
        by_route = ("method", "route")
        self.release = (release,) if release else ()
        self.requests = Counter("http_requests_total", "HTTP requests answered.", (*by_route, "status"))
        self.duration = Histogram(
            "http_request_duration_seconds",
            "Time from the request's head until the last of its response is handed to the server.",
            (*by_route, "status_class", *(["release"] if release else [])),
            buckets=LATENCY_BUCKETS,
            unit="seconds",
        )
        self.in_progress = Gauge(
            "http_requests_in_progress", "HTTP requests being answered.", ("method",), merge="sum", live=True
        )
        self.request_size = Histogram(
            "http_request_size_bytes",
            "Bodies of requests whose method has one.",
            by_route,
            buckets=SIZE_BUCKETS,
            unit="bytes",
        )
        self.response_size = Histogram(
            "http_response_size_bytes",
            "Bodies of responses, as handed to the server.",
            by_route,
            buckets=SIZE_BUCKETS,
            unit="bytes",
        )
        self.sessions = Counter("websocket_sessions_total", "WebSocket sessions ended or refused.", ("route", "code"))
        self.sessions_in_progress = Gauge(
            "websocket_sessions_in_progress", "WebSocket sessions open.", merge="sum", live=True
        )
        # A second gauge of the same number: how far the fullest process is from the others.
        self.sessions_of_fullest = Gauge(
            "websocket_sessions_in_progress_max",
            "WebSocket sessions open with the fullest process.",
            merge="max",
            live=True,
        )
        self.session_duration = Histogram(
            "websocket_session_duration_seconds",
            "Time from accept to close of a WebSocket session.",
            ("route",),
            buckets=SESSION_BUCKETS,
            unit="seconds",
        )

    def bind(self, method: str, route: str, status: int) -> Emitters:
        """Return the emitters of one (method, route, status)."""
        known = 100 <= status <= 599
        response_size = self.response_size.labels(method, route).observe
        status_class = f"{status // 100}xx" if known else OTHER
        return Emitters(
            self.requests.labels(method, route, str(status) if known else OTHER).one,
            self.duration.labels(method, route, status_class, *self.release).observe,
            None if method in BODYLESS else self.request_size.labels(method, route).observe,
            # A server strips the body of an answer to HEAD.
            partial(_zero, response_size) if method == "HEAD" else response_size,
        )


@cache
def http_metrics() -> HttpMetrics:
    """Return the HTTP metrics of this process: defined once, however many apps are instrumented."""
    return HttpMetrics(producers.default_client().release)


class InstrumentMiddleware:
    """ASGI middleware; `exclude` names route templates that shall not be measured, such as `/healthz`."""

    def __init__(self, app: ASGIApp, exclude: Collection[str] = (), metrics: HttpMetrics | None = None) -> None:
        self.app = app
        self.exclude = frozenset(exclude)
        self.metrics = metrics or http_metrics()
        self.bound: dict[tuple[str, str, int], Emitters] = {}
        self.in_progress: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any ASGI type; only http and websocket are measured."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                return await self._serve_websocket(scope, receive, send)
            return await self.app(scope, receive, send)
        method = scope["method"]
        if method not in METHODS:
            method = OTHER
        exchange = Exchange(self, method, scope, send)
        if method not in BODYLESS:
            receive = exchange.received_by(receive)
        (self.in_progress.get(method) or self.counted(method))[0]()
        try:
            await self.app(scope, receive, exchange.send)
        except BaseException as error:
            exchange.fail(error)
            raise
        finally:
            if not exchange.is_ended:
                exchange.end()

    def counted(self, method: str) -> tuple[Callable[[], None], Callable[[], None]]:
        """Return what counts requests of a method up and down that is not in `in_progress` yet."""
        child = self.metrics.in_progress.labels(method)
        self.in_progress[method] = (child.up, child.down)
        return self.in_progress[method]

    def series(self, method: str, route: str, status: int) -> Emitters:
        """Return the emitters for a (method, route, status) that is not in `bound` yet."""
        found = SILENT if route in self.exclude else self.metrics.bind(method, route, status)
        self.bound[method, route, status] = found
        return found

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = Session(self.metrics, scope, receive, send)
        try:
            await self.app(scope, session.receive, session.send)
        except BaseException as error:
            session.fail(error)
            raise
        finally:
            session.end(self.exclude)


class Exchange:
    """One request and its response, as they pass the middleware.

    Written for few calls and few attributes: what takes 2 us by itself takes 8 in a server, whose own code has to come
    back to the processor's caches afterwards.
    """

    status = received_bytes = sent_bytes = 0
    headers: Iterable[tuple[bytes, bytes]] = ()
    is_ended = False

    def __init__(self, middleware: "InstrumentMiddleware", method: str, scope: Scope, send: Send) -> None:
        self.started_at = perf_counter()
        self.middleware = middleware
        self.method = method
        self.scope = scope
        self.root_path = scope.get("root_path", "")
        self._send = send

    def received_by(self, receive: Receive) -> Receive:
        """Return the `receive` to hand on: one that counts where the length of the body is not declared."""
        declared = content_length(self.scope["headers"])
        if declared is not None:
            self.received_bytes = declared
            return receive

        async def count() -> Message:
            message = await receive()
            self.received_bytes += len(message.get("body", b""))
            return message

        return count

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on; no coroutine of its own.

        With its last part the response is handed over: what the app still does (background tasks) is not the
        client's wait.
        """
        kind = message["type"]
        if kind == "http.response.body":
            self.sent_bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.end()
        elif kind == "http.response.start":
            self.status = message["status"]
            self.headers = message.get("headers", ())
        elif kind == "http.response.pathsend":
            self.sent_bytes = content_length(self.headers) or 0
            self.end()
        return self._send(message)

    def fail(self, error: BaseException) -> None:
        """Settle the status of an exchange that ended by an exception."""
        if isinstance(error, Exception) and not is_disconnect(error):
            self.status = 500
        elif not self.status:
            self.status = CLIENT_CLOSED

    def end(self) -> None:
        """Emit, once."""
        if self.is_ended:
            return
        self.is_ended = True
        elapsed_s = perf_counter() - self.started_at
        method, status = self.method, self.status or 500  # no answer at all: the server sends 500
        middleware = self.middleware
        key = (method, route_template(self.scope, self.root_path, status), status)
        answered, duration, request_size, response_size = middleware.bound.get(key) or middleware.series(*key)
        answered()
        duration(elapsed_s)
        if request_size is not None:
            request_size(self.received_bytes)
        response_size(self.sent_bytes)
        middleware.in_progress[method][1]()


class Session:
    """One WebSocket session, as its messages pass the middleware."""

    __slots__ = ("_receive", "_send", "accepted_at", "code", "metrics", "root_path", "scope")

    def __init__(self, metrics: HttpMetrics, scope: Scope, receive: Receive, send: Send) -> None:
        self.metrics = metrics
        self.scope = scope
        self.root_path = scope.get("root_path", "")
        self._receive = receive
        self._send = send
        self.accepted_at = 0.0
        self.code = ""

    async def receive(self) -> Message:
        """Pass a message in; a disconnect tells the code."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect" and not self.code:
            code = message.get("code") or 1005
            # uvicorn says 1005 of a connection that broke, too; of a close frame it also tells the reason.
            self.code = client_code(ABNORMAL if code == 1005 and "reason" not in message else code)
        return message

    async def send(self, message: Message) -> None:
        """Pass a message out; accept opens the session, close tells the code."""
        await self._send(message)
        kind = message["type"]
        if kind == "websocket.accept":
            self.accepted_at = perf_counter()
            self.metrics.sessions_in_progress.labels().inc()
            self.metrics.sessions_of_fullest.labels().inc()
        elif kind == "websocket.close" and not self.code:
            # Refused before accept: the server answers 403.
            self.code = str(message.get("code") or 1000) if self.accepted_at else "403"
        elif kind == "websocket.http.response.start":
            self.code = str(message["status"])

    def fail(self, error: BaseException) -> None:
        """Settle the code of a session that ended by an exception."""
        if not self.code:
            # Servers send 1011 for an exception after accept and answer 500 before it.
            failed = "1011" if self.accepted_at else "500"
            self.code = failed if isinstance(error, Exception) else str(ABNORMAL)

    def end(self, exclude: Collection[str]) -> None:
        """Emit. Sessions are rare beside requests, so `labels()` is cheap enough here."""
        if self.accepted_at:
            self.metrics.sessions_in_progress.labels().dec()
            self.metrics.sessions_of_fullest.labels().dec()
        route = route_template(self.scope, self.root_path, 404 if not self.accepted_at else 101)
        if route in exclude:
            return
        self.metrics.sessions.labels(route, self.code or ("1000" if self.accepted_at else "500")).inc()
        if self.accepted_at:
            self.metrics.session_duration.labels(route).observe(perf_counter() - self.accepted_at)


def client_code(code: int) -> str:
    """Return a close code as a label: clients may choose among 2000 private ones, which become two."""
    if 1000 <= code <= 1015:
        return str(code)
    return f"{code // 1000}xxx" if 3000 <= code <= 4999 else OTHER


def is_disconnect(error: Exception) -> bool:
    """Whether the exception says that the client is gone; by name, since this module imports no framework."""
    return isinstance(error, ConnectionError) or type(error).__name__ in ("ClientDisconnect", "WebSocketDisconnect")


def content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the declared length of a body; None when none, or nonsense, is declared."""
    for name, value in headers:
        if name == b"content-length" or name.lower() == b"content-length":
            return int(value) if value.isdigit() else None
    return None


def instrument(app: App, exclude: Collection[str] = ()) -> App:
    """Measure every request and WebSocket session of a FastAPI or Starlette app; returns the app.

    What was emitted is sent when the app shuts down: servers such as uvicorn end by a signal, without `atexit`.
    Add it last, so that it is the outermost middleware. Any other ASGI app: `InstrumentMiddleware(app)`.
    """
    known = cast(Any, app)
    known.add_middleware(InstrumentMiddleware, exclude=exclude)
    known.router.lifespan_context = lifespan(known.router.lifespan_context)
    return app


def lifespan(wrapped: Lifespan[App] | None = None, stop_deadline_s: float = STOP_DEADLINE_S) -> Lifespan[App]:
    """Return a lifespan that starts the producer with the app and flushes it after the app's own shutdown.

    `FastAPI(lifespan=lifespan())`, or around an existing one: `FastAPI(lifespan=lifespan(own))`.
    """

    @asynccontextmanager
    async def run(app: App) -> AsyncGenerator[Mapping[str, Any] | None]:
        producers.start()
        try:
            async with watching():
                if wrapped is None:
                    yield None
                else:
                    async with wrapped(app) as state:
                        yield state
        finally:
            await asyncio.to_thread(producers.stop, stop_deadline_s)

    return run
