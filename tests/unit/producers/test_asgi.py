"""The middleware: what it counts, under which labels, and that it changes nothing that passes it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

import producers.asgi
from producers import Client, Settings
from producers.asgi import ASGIApp, HttpMetrics, InstrumentMiddleware, Message, client_code, instrument, lifespan


class Recorder:
    """A metric of any kind that remembers what was emitted, by label values."""

    all: dict[str, "Recorder"]
    label_calls = 0

    def __init__(self, name: str, _help: str, labelnames: Sequence[str] = (), *_: Any, **__: Any) -> None:
        self.labelnames = labelnames
        self.values: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
        Recorder.all[name] = self

    def labels(self, *values: str) -> "Child":
        assert len(values) == len(self.labelnames)
        Recorder.label_calls += 1
        return Child(self.values[values])

    def sums(self) -> dict[tuple[str, ...], float]:
        return {labels: sum(values) for labels, values in self.values.items() if values}


class Child:
    def __init__(self, values: list[float]) -> None:
        self.observe = values.append
        self.values = values
        self.one = self.up = self.inc
        self.down = self.dec

    def inc(self, amount: float = 1.0) -> None:
        self.values.append(amount)

    def dec(self, amount: float = 1.0) -> None:
        self.values.append(-amount)


Seen = dict[str, Recorder]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterable[Seen]:
    """Everything that is emitted, by metric name."""
    Recorder.all, Recorder.label_calls = {}, 0
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(producers.asgi, kind, Recorder)
    producers.asgi.http_metrics.cache_clear()
    yield Recorder.all
    producers.asgi.http_metrics.cache_clear()


async def ask(app: ASGIApp, method: str, path: str, **options: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # pyright: ignore[reportArgumentType]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **options)


def requests(seen: Seen) -> dict[tuple[str, ...], float]:
    return seen["http_requests_total"].sums()


def shop() -> FastAPI:
    app, inner, sub = FastAPI(), APIRouter(prefix="/items"), FastAPI()

    @inner.get("/{item}")
    async def item(item: int) -> int:
        return item

    @sub.get("/page/{page}")
    async def page(page: int) -> int:
        return page

    @app.post("/echo")
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await request.body())

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("broken")

    @app.get("/gone")
    async def gone() -> None:
        raise HTTPException(410)

    app.include_router(inner, prefix="/v1")
    app.mount("/static/docs", sub)
    app.mount("/tenant/{name}", sub)
    return instrument(app)


async def test_a_request_is_counted_under_its_route_template(seen: Seen) -> None:
    app = shop()
    for number in range(3):
        assert (await ask(app, "GET", f"/v1/items/{number}")).json() == number
    assert requests(seen) == {("GET", "/v1/items/{item}", "200"): 3}
    [durations] = seen["http_request_duration_seconds"].values.values()
    assert len(durations) == 3
    assert all(0 < value < 10 for value in durations)
    assert list(seen["http_request_duration_seconds"].values) == [("GET", "/v1/items/{item}", "2xx")]


async def test_mounted_apps_keep_templates_of_mount_and_route(seen: Seen) -> None:
    app = shop()
    for path in ("/static/docs/page/1", "/tenant/ann/page/1", "/tenant/bob/page/2", "/tenant/eve/nothing"):
        await ask(app, "GET", path)
    assert requests(seen) == {
        ("GET", "/static/docs/page/{page}", "200"): 1,
        ("GET", "/tenant/{name}/page/{page}", "200"): 2,
        ("GET", "unmatched", "404"): 1,
    }


async def test_plain_routes_of_fastapi_keep_their_templates(seen: Seen) -> None:
    """FastAPI's router does not say which route of Starlette's it chose; `/docs` is one."""

    async def plain(request: Request) -> PlainTextResponse:
        return PlainTextResponse("plain", request.path_params.get("status", 200))

    app, sub, router = FastAPI(), FastAPI(), APIRouter()
    for one in (app, sub, router):
        one.add_route("/y/{i}", plain)
        one.add_route("/z/{i}", plain)
        one.add_route("/status/{status:int}", plain)
    sub.include_router(router, prefix="/inner")
    app.include_router(router, prefix="/inner")
    app.mount("/sub/{name}", sub)
    instrument(app)
    for path in ("/docs", "/y/1", "/z/1", "/status/404", "/inner/z/1", "/nope"):
        await ask(app, "GET", path)
        await ask(app, "GET", "/sub/ann" + path)
    await ask(app, "POST", "/y/1")
    templates = [("/docs", "200"), ("/y/{i}", "200"), ("/z/{i}", "200"), ("/status/{status:int}", "404")]
    templates.append(("/inner/z/{i}", "200"))
    assert requests(seen) == {
        **{("GET", path, status): 1 for path, status in templates},
        **{("GET", "/sub/{name}" + path, status): 1 for path, status in templates},
        ("GET", "unmatched", "404"): 2,
        ("POST", "/y/{i}", "405"): 1,
    }


async def test_fastapi_within_starlette_keeps_the_templates_of_plain_routes(seen: Seen) -> None:
    app = instrument(Starlette(routes=[Mount("/a", FastAPI()), Mount("/", FastAPI())]))
    for path in ("/a/docs", "/docs", "/a/nope", "/nope"):
        await ask(app, "GET", path)
    assert requests(seen) == {
        ("GET", "/a/docs", "200"): 1,
        ("GET", "/docs", "200"): 1,
        ("GET", "unmatched", "404"): 2,
    }


async def test_starlette_mounts_within_mounts(seen: Seen) -> None:
    async def leaf(_: Request) -> PlainTextResponse:
        return PlainTextResponse("leaf")

    app = instrument(Starlette(routes=[Mount("/a", routes=[Mount("/b/{c}", routes=[Route("/{d}", leaf)])])]))
    assert (await ask(app, "GET", "/a/b/1/2")).text == "leaf"
    assert (await ask(app, "GET", "/a/x")).status_code == 404
    assert requests(seen) == {("GET", "/a/b/{c}/{d}", "200"): 1, ("GET", "unmatched", "404"): 1}


async def test_a_proxy_root_path_is_no_part_of_the_template(seen: Seen) -> None:
    app = FastAPI()

    @app.get("/x/{y}")
    async def x(y: str) -> str:
        return y

    async def behind_proxy(scope: Any, receive: Any, send: Any) -> None:
        scope["root_path"] = "/behind/proxy"
        await app(scope, receive, send)

    await ask(InstrumentMiddleware(behind_proxy), "GET", "/x/1")
    assert requests(seen) == {("GET", "/x/{y}", "200"): 1}


async def test_paths_that_no_route_takes_are_one_series(seen: Seen) -> None:
    app = shop()
    for path in ("/nope", "/wp-admin.php", "/v1/items", "/static/docs/nope"):
        await ask(app, "GET", path)
    assert requests(seen) == {("GET", "unmatched", "404"): 4}


async def test_invented_methods_are_one_series(seen: Seen) -> None:
    app = shop()
    for method in ("BREW", "PROPFIND", "X1"):
        await ask(app, method, "/gone")
    assert requests(seen) == {("_OTHER", "/gone", "405"): 3}


async def test_a_refused_method_keeps_its_route(seen: Seen) -> None:
    await ask(shop(), "DELETE", "/v1/items/3")
    assert requests(seen) == {("DELETE", "/v1/items/{item}", "405"): 1}


async def test_an_exception_is_counted_as_500_and_raised(seen: Seen) -> None:
    app = shop()
    assert (await ask(app, "GET", "/broken")).status_code == 500
    assert (await ask(app, "GET", "/gone")).status_code == 410
    assert requests(seen) == {("GET", "/broken", "500"): 1, ("GET", "/gone", "410"): 1}

    async def fails(*_: Any) -> None:
        raise ValueError("seen by the server")

    with pytest.raises(ValueError, match="seen by the server"):
        await InstrumentMiddleware(fails)(http_scope(), nothing_comes, nowhere)


async def test_bodies_are_measured_both_ways(seen: Seen) -> None:
    app = shop()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a" * 700
        yield b"b" * 300

    assert len((await ask(app, "POST", "/echo", content=b"x" * 123)).content) == 123
    assert len((await ask(app, "POST", "/echo", content=chunks())).content) == 1000
    assert seen["http_request_size_bytes"].values == {("POST", "/echo"): [123, 1000]}
    assert seen["http_response_size_bytes"].values == {("POST", "/echo"): [123, 1000]}


async def test_a_streamed_response_counts_all_its_bytes_once(seen: Seen) -> None:
    app = FastAPI()

    async def numbers() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"0123456789"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(numbers())

    assert len((await ask(instrument(app), "GET", "/stream")).content) == 500
    assert seen["http_response_size_bytes"].values == {("GET", "/stream"): [500]}
    assert requests(seen) == {("GET", "/stream", "200"): 1}


async def test_a_background_task_is_not_the_clients_wait(seen: Seen) -> None:
    app, may_end, has_begun = FastAPI(), asyncio.Event(), asyncio.Event()

    async def chore() -> None:
        has_begun.set()
        await may_end.wait()

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> str:
        tasks.add_task(chore)
        return "done"

    running = asyncio.create_task(ask(instrument(app), "GET", "/later"))
    await has_begun.wait()
    assert requests(seen) == {("GET", "/later", "200"): 1}
    assert seen["http_requests_in_progress"].sums() == {("GET",): 0}
    may_end.set()
    await running
    assert requests(seen) == {("GET", "/later", "200"): 1}


async def test_requests_are_in_progress_until_they_are_answered(seen: Seen) -> None:
    app, may_end, has_begun = FastAPI(), asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> None:
        has_begun.set()
        await may_end.wait()

    running = asyncio.create_task(ask(instrument(app), "GET", "/slow"))
    await has_begun.wait()
    assert seen["http_requests_in_progress"].sums() == {("GET",): 1}
    may_end.set()
    await running
    assert seen["http_requests_in_progress"].sums() == {("GET",): 0}


async def test_a_cancelled_request_is_counted_and_not_in_progress(seen: Seen) -> None:
    has_begun = asyncio.Event()

    async def hangs(*_: Any) -> None:
        has_begun.set()
        await asyncio.Event().wait()

    running = asyncio.ensure_future(InstrumentMiddleware(hangs)(http_scope(), nothing_comes, nowhere))
    await has_begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert requests(seen) == {("GET", "unmatched", "499"): 1}
    assert seen["http_requests_in_progress"].sums() == {("GET",): 0}


async def test_a_client_that_leaves_within_a_stream_is_no_server_error(seen: Seen) -> None:
    sent: list[Message] = []

    async def broken_pipe(message: Message) -> None:
        if len(sent) == 2:
            raise OSError("client is gone")
        sent.append(message)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"more"

    app = InstrumentMiddleware(StreamingResponse(endless()))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ClientDisconnect):
        await app(http_scope(), nothing_comes, broken_pipe)
    assert requests(seen) == {("GET", "unmatched", "200"): 1}
    assert seen["http_response_size_bytes"].values == {("GET", "unmatched"): [8]}


async def test_messages_pass_unchanged_and_in_order(seen: Seen) -> None:
    messages: list[Message] = [
        {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")], "trailers": True},
        {"type": "http.response.body", "body": b"1", "more_body": True},
        {"type": "http.response.body", "body": b"2"},
        {"type": "http.response.trailers", "headers": []},
    ]
    passed: list[Message] = []

    async def answers(_scope: Any, _receive: Any, send: Callable[[Message], Any]) -> None:
        for message in messages:
            await send(message)

    async def keep(message: Message) -> None:
        passed.append(message)

    await InstrumentMiddleware(answers)(http_scope(), nothing_comes, keep)
    assert passed == messages
    assert requests(seen) == {("GET", "unmatched", "200"): 1}


async def test_a_named_release_is_a_label_of_durations_only(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "default_client", lambda: Client(Settings(release="2026-11-23.4")))
    await ask(shop(), "GET", "/v1/items/3")
    assert list(seen["http_request_duration_seconds"].sums()) == [("GET", "/v1/items/{item}", "2xx", "2026-11-23.4")]
    assert list(requests(seen)) == [("GET", "/v1/items/{item}", "200")]


async def test_a_known_request_looks_no_label_up(seen: Seen) -> None:
    app = shop()
    await ask(app, "GET", "/v1/items/1")
    before = Recorder.label_calls
    await ask(app, "GET", "/v1/items/2")
    assert Recorder.label_calls == before


async def test_excluded_routes_are_not_measured(seen: Seen) -> None:
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    instrument(app, exclude=("/healthz",))
    await ask(app, "GET", "/healthz")
    assert requests(seen) == {}


async def test_head_has_no_body_to_count(seen: Seen) -> None:
    async def page(_: Request) -> PlainTextResponse:
        return PlainTextResponse("x" * 99)

    await ask(instrument(Starlette(routes=[Route("/page", page)])), "HEAD", "/page")
    assert seen["http_response_size_bytes"].values == {("HEAD", "/page"): [0]}


def chat() -> FastAPI:
    app, inner = FastAPI(), APIRouter(prefix="/rooms")

    @inner.websocket("/{room}")
    async def room(socket: WebSocket, room: str) -> None:
        await socket.accept()
        text = await socket.receive_text()
        if text == "break":
            raise ValueError(room)
        await socket.close(int(text))

    @app.websocket("/refuses")
    async def refuses(socket: WebSocket) -> None:
        await socket.close()

    app.include_router(inner, prefix="/chat")
    return instrument(app)


async def converse(app: ASGIApp, path: str, *incoming: Message) -> list[Message]:
    """Run one WebSocket session; return what the app sent."""
    waiting = [{"type": "websocket.connect"}, *incoming]
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {**http_scope(path), "type": "websocket", "subprotocols": []}
    await app(scope, receive, send)
    return sent


def text(content: str) -> Message:
    return {"type": "websocket.receive", "text": content}


async def test_sessions_are_counted_apart_from_requests(seen: Seen) -> None:
    app = chat()
    await converse(app, "/chat/rooms/a", text("1000"))
    await converse(app, "/chat/rooms/b", text("4123"))
    assert seen["websocket_sessions_total"].sums() == {
        ("/chat/rooms/{room}", "1000"): 1,
        ("/chat/rooms/{room}", "4123"): 1,
    }
    assert len(seen["websocket_session_duration_seconds"].values["/chat/rooms/{room}",]) == 2
    assert seen["websocket_sessions_in_progress"].sums() == {(): 0}
    assert requests(seen) == {}


async def test_a_session_that_breaks_or_is_left_or_refused_says_so(seen: Seen) -> None:
    app = chat()
    with pytest.raises(ValueError, match="a"):
        await converse(app, "/chat/rooms/a", text("break"))
    with pytest.raises(WebSocketDisconnect):
        await converse(app, "/chat/rooms/b", {"type": "websocket.disconnect", "code": 1001})
    await converse(app, "/refuses")
    await converse(app, "/nowhere")
    assert seen["websocket_sessions_total"].sums() == {
        ("/chat/rooms/{room}", "1011"): 1,
        ("/chat/rooms/{room}", "1001"): 1,
        ("/refuses", "403"): 1,
        ("unmatched", "403"): 1,
    }
    assert seen["websocket_sessions_in_progress"].sums() == {(): 0}


def test_clients_cannot_invent_close_codes() -> None:
    assert {client_code(code) for code in range(5100)} <= {"3xxx", "4xxx", "_OTHER", *map(str, range(1000, 1016))}


async def test_lifespan_passes_through_the_middleware(seen: Seen) -> None:
    types: list[str] = []

    async def remember(scope: Any, *_: Any) -> None:
        types.append(scope["type"])

    await InstrumentMiddleware(remember)({"type": "lifespan"}, nothing_comes, nowhere)
    assert types == ["lifespan"]


async def test_lifespan_starts_first_and_flushes_after_the_apps_own(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Any] = []

    def stop(deadline_s: float) -> None:
        order.append(("stop", deadline_s))

    monkeypatch.setattr(producers, "start", lambda: order.append("start"))
    monkeypatch.setattr(producers, "stop", stop)

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[dict[str, int]]:
        order.append("opened")
        yield {"answer": 42}
        order.append("closed")

    async with lifespan(own, 3.0)(FastAPI()) as state:
        assert state == {"answer": 42}
    assert order == ["start", "opened", "closed", ("stop", 3.0)]
    order.clear()
    with pytest.raises(ValueError, match="own failure"):
        async with lifespan()(FastAPI()):
            raise ValueError("own failure")
    assert [step[0] if isinstance(step, tuple) else step for step in order] == ["start", "stop"]


def test_two_apps_in_a_process_share_their_metrics(seen: Seen) -> None:
    first, second = InstrumentMiddleware(nowhere), InstrumentMiddleware(nowhere)  # pyright: ignore[reportArgumentType]
    assert first.metrics is second.metrics
    assert isinstance(first.metrics, HttpMetrics)


def http_scope(path: str = "/x") -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }


async def nothing_comes() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def nowhere(message: Message) -> None:
    """Send a message nowhere."""
