"""What a client may send to the exporter beyond what its description allows: any bytes in path, query and headers.

Asked at the ASGI border, where bytes arrive as they were sent; servers are away: nothing but the request counts.
Promise: never an exception, never 500, no secret in an answer, and no answer without the token but from open paths.
"""

import asyncio
import hmac
import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote_from_bytes

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from database.settings import read_settings
from exporter import access
from exporter.app import make_app
from exporter.settings import ExporterSettings
from tests.fuzz.budget import examples

TOKEN: Final = "s3cret-t0ken"
PASSWORD: Final = "s3cret-p4ssword"
AWAY: Final = {
    "POSTGRES_DSN": f"postgresql://u:{PASSWORD}@127.0.0.1:1/x",
    "REDIS_URL": f"redis://u:{PASSWORD}@127.0.0.1:1/0",
    "STREAMGAUGE_PROBE_DEADLINE_S": "0.2",
    "STREAMGAUGE_SCRAPE_DEADLINE_S": "0.2",
}
OPEN: Final = {"/healthz", "/readyz"}
Headers = list[tuple[bytes, bytes]]


class Asked:
    """A running exporter whose servers are away."""

    def __init__(self, **more: str) -> None:
        self.app = make_app(read_settings(ExporterSettings, AWAY | more))
        self._runner = asyncio.Runner()
        self._life = self.app.router.lifespan_context(self.app)
        self._runner.run(self._life.__aenter__())

    def close(self) -> None:
        """Stop it."""
        self._runner.run(self._life.__aexit__(None, None, None))
        self._runner.close()

    def ask(self, method: str, path: str, query: bytes = b"", headers: Headers | None = None) -> tuple[int, bytes]:
        """Ask once; returns the status and all that was said, headers included."""
        scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method}
        scope |= {"scheme": "http", "path": path, "raw_path": path.encode("utf-8", "replace"), "query_string": query}
        scope |= {"root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {}}
        scope["headers"] = [(b"host", b"localhost")] if headers is None else headers
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        async def one() -> None:
            async with asyncio.timeout(20):
                await self.app(scope, receive, send)

        self._runner.run(one())
        heads = [b"".join(pair) for message in sent for pair in message.get("headers", [])]
        return sent[0]["status"], b"\n".join([*heads, *(message.get("body", b"") for message in sent)])


@pytest.fixture(scope="module")
def closed() -> Iterator[Asked]:
    """An exporter with a token."""
    made = Asked(STREAMGAUGE_EXPORTER_TOKEN=TOKEN)
    yield made
    made.close()


@pytest.fixture(scope="module")
def opened() -> Iterator[Asked]:
    """An exporter without one."""
    made = Asked()
    yield made
    made.close()


def described(app: FastAPI) -> list[tuple[str, str, list[str]]]:
    """Return every operation that ends: method, path, names of parameters."""
    found: list[tuple[str, str, list[str]]] = []
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            names = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
            found.append((method.upper(), path, names))
    return found


ODD: Final = [b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"9" * 5000, b"-" * 9, b"1e999", b"nan"]
ODD_HEADERS: Final = [b"text/plain;q=", b"*/*;q=nan", b"gzip;q=1e999", b"a," * 3000, b'"' * 99]
NAMES: Final = [b"accept", b"accept-encoding", b"if-none-match", b"authorization", b"host", b"cookie", b"range"]
METHODS: Final = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "TRACE"]
PATHS: Final = ["/metrics", "/openapi.json", "/api/producers", "//healthz", "/healthz/"]
SCHEMES: Final = [b"", b"Bearer ", b"Basic ", b"bearer\t", b"Digest "]
raw = st.binary(max_size=40) | st.sampled_from(ODD)
header_values = raw | st.sampled_from(ODD_HEADERS)
paths = st.sampled_from(PATHS) | st.text(max_size=12).map("/{}".format)


@examples(150)
@given(data=st.data())
def test_any_bytes_in_a_request_are_answered_and_tell_no_secret(opened: Asked, data: st.DataObject) -> None:
    method, path, names = data.draw(st.sampled_from(described(opened.app)))
    pairs = data.draw(st.lists(st.tuples(st.sampled_from([*names, "other"]), raw, st.booleans()), max_size=5))
    texts = [(name.encode(), quote_from_bytes(text).encode() if quoted else text) for name, text, quoted in pairs]
    query = b"&".join(name + b"=" + text for name, text in texts)
    headers = data.draw(st.lists(st.tuples(st.sampled_from(NAMES), header_values), max_size=4))
    job = data.draw(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
    status, said = opened.ask(method, path.replace("{job}", job), query, headers)
    assert status < 500 or status == 503, (status, said[:300])
    assert PASSWORD.encode() not in said


@examples(150)
@given(st.sampled_from(METHODS), paths, st.sampled_from(SCHEMES), header_values)
def test_nothing_but_the_token_opens_a_path(closed: Asked, method: str, path: str, scheme: bytes, text: bytes) -> None:
    if path in OPEN:
        return
    status, said = closed.ask(method, path, b"", [(b"host", b"x"), (b"authorization", scheme + text)])
    assert (status, b"a token is needed" in said) == (401, True)
    assert TOKEN.encode() not in said


def test_no_route_answers_without_the_token_but_the_open_ones(closed: Asked) -> None:
    """What is described, and what is not: the page, its files and its socket's neighbours."""
    routes = {("GET", str(getattr(route, "path", ""))) for route in closed.app.routes}
    routes |= {(method, path) for method, path, _ in described(closed.app)}
    answers = {(method, path): closed.ask(method, path.replace("{job}", "upkeep"))[0] for method, path in routes}
    assert len(answers) > 15
    assert {path for (_, path), status in answers.items() if status != 401} == OPEN


WRONG: Final = ["", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
ODD_TOKENS: Final = ["Bearer gr\u00fcn", "Basic \u00ff", "Bearer \0"]


def test_missing_wrong_and_odd_tokens_are_refused_alike(closed: Asked) -> None:
    """Nothing tells a guesser how near he is."""
    headers = [[(b"authorization", text.encode("latin-1"))] for text in [*WRONG, *ODD_TOKENS]]
    answers = {closed.ask("GET", "/metrics", b"", one) for one in [*headers, []]}
    assert [status for status, _ in answers] == [401]


@pytest.mark.parametrize("host", [b"x/healthz?", b"x/healthz#", b"localhost/readyz?", b"", b"\xff"])
def test_the_host_header_opens_no_path(closed: Asked, host: bytes) -> None:
    assert closed.ask("GET", "/openapi.json", b"", [(b"host", host)])[0] == 401


def test_tokens_are_compared_in_constant_time(closed: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    class Watched:
        @staticmethod
        def compare_digest(given_token: bytes, ours: bytes) -> bool:
            compared.append((given_token, ours))
            return hmac.compare_digest(given_token, ours)

    monkeypatch.setattr(access, "hmac", Watched)
    for text in ("Bearer wrong", f"Bearer {TOKEN}", "Basic d3Jvbmc6d3Jvbmc="):
        closed.ask("GET", "/openapi.json", b"", [(b"authorization", text.encode())])
    assert compared == [(given_token, TOKEN.encode()) for given_token in (b"wrong", TOKEN.encode(), b"wrong")]


def test_what_is_served_about_the_settings_holds_no_secret(opened: Asked, caplog: pytest.LogCaptureFixture) -> None:
    for method, path, _ in described(opened.app):
        if method == "GET":
            assert PASSWORD.encode() not in opened.ask(method, path.replace("{job}", "upkeep"))[1], path
    assert PASSWORD not in json.dumps(opened.app.openapi())
    assert PASSWORD not in caplog.text
