"""Rules A1-A4: Grafana, Prometheus and the API itself."""

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamgauge.hardening.compose_rules import each
from streamgauge.hardening.files import Files, environment
from streamgauge.hardening.live import ASK_S, Live
from streamgauge.hardening.rule import Rule

GRAFANA: Final[Mapping[str, str]] = {
    "GF_AUTH_ANONYMOUS_ENABLED": "false",
    "GF_USERS_ALLOW_SIGN_UP": "false",
    "GF_SECURITY_COOKIE_SECURE": "true",
}
STRANGER: Final = "https://stranger.example"
REFUSED: Final = 403
LARGE_BYTES: Final = 1 << 20
TOO_LARGE: Final = 1009
"""Close code of a WebSocket (RFC 6455, section 7.4.1)."""
MANY: Final = 300
REFUSALS: Final = 400
"""And everything above."""


def a1(files: Files) -> Iterable[str]:
    """Grafana: own password, nobody anonymous, no sign-up, secure cookies."""
    told = environment(files.services["grafana"]) if "grafana" in files.services else {}
    if not told.get("GF_SECURITY_ADMIN_PASSWORD__FILE"):
        yield "GF_SECURITY_ADMIN_PASSWORD__FILE is not set"
    yield from (f"{name} is not {value}" for name, value in GRAFANA.items() if told.get(name, "").lower() != value)


def a2(files: Files) -> Iterable[str]:
    """Prometheus: no API that deletes or stops, and not published."""
    for name, service in each(files):
        if name != "prometheus":
            continue
        command = " ".join(map(str, cast("list[Any]", service.get("command") or [])))
        flags = ("--web.enable-admin-api", "--web.enable-lifecycle")
        yield from (f"prometheus runs with {flag}" for flag in flags if flag in command)
        if service.get("ports"):
            yield "prometheus is published"


async def live_a1(live: Live) -> Iterable[str]:
    """Nobody gets in without or with the usual password."""
    at = live.named("grafana")
    faults = ["anonymous users get in"] if (await live.get(f"{at}/api/search")).status < REFUSALS else []
    usual = {"Authorization": "Basic YWRtaW46YWRtaW4="}
    if (await live.get(f"{at}/api/org", usual)).status < REFUSALS:
        faults.append("admin gets in with the password admin")
    return faults


async def live_a2(live: Live) -> Iterable[str]:
    """The administrative API is off."""
    answer = await live.get(f"{live.named('prometheus')}/api/v1/status/flags")
    flags: Mapping[str, str] = json.loads(answer.body)["data"]
    return [f"--{name} is on" for name in ("web.enable-admin-api", "web.enable-lifecycle") if flags.get(name) == "true"]


async def live_a3(live: Live) -> Iterable[str]:
    """A WebSocket of another origin is refused; one that sends too much, or too fast, is closed."""
    return [*await _strange_origin(live), *await _large_message(live), *await _many_messages(live)]


def _socket(live: Live, origin: str | None = None) -> connect:
    url = f"{live.named('edge').replace('https://', 'wss://')}/ws"
    return connect(url, origin=cast("Any", origin), ssl=live.trusted(), open_timeout=ASK_S, close_timeout=ASK_S)


async def _strange_origin(live: Live) -> list[str]:
    try:
        async with _socket(live, STRANGER):
            return [f"a socket with Origin {STRANGER} is accepted"]
    except InvalidStatus as error:
        status = error.response.status_code
        return [] if status == REFUSED else [f"a socket with a strange origin is answered {status}, not {REFUSED}"]


async def _large_message(live: Live) -> list[str]:
    async with _socket(live) as socket:
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(ASK_S):
                await socket.send("x" * LARGE_BYTES)
                await socket.recv()
        await socket.close()
        is_told = socket.close_code == TOO_LARGE
        return [] if is_told else [f"a message of {LARGE_BYTES} bytes is taken (closed with {socket.close_code})"]


async def _many_messages(live: Live) -> list[str]:
    answered = 0
    async with _socket(live) as socket:
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(ASK_S):
                for _ in range(MANY):
                    await socket.send("hello")
                while answered < MANY:
                    await socket.recv()
                    answered += 1
    return [f"{MANY} messages at once are all answered"] if answered == MANY else []


async def live_a4(live: Live) -> Iterable[str]:
    """No origin is echoed with credentials."""
    headers = (await live.get(f"{live.named('edge')}/healthz", {"Origin": STRANGER})).headers
    allowed = headers.get("access-control-allow-origin", "")
    if allowed in ("*", STRANGER) and headers.get("access-control-allow-credentials") == "true":
        return [f"Access-Control-Allow-Origin: {allowed} with credentials"]
    return []


RULES: Final = (
    Rule("A1", "critical", "Grafana lets in nobody it does not know", "see docker-compose.scale.yml", a1, live_a1),
    Rule("A2", "warning", "Prometheus cannot be stopped or emptied over HTTP", "remove the flag", a2, live_a2),
    Rule(
        "A3", "warning", "sockets: other origins refused, size and rate limited", "see docs/settings.md", None, live_a3
    ),
    Rule("A4", "warning", "no origin is echoed with credentials", "name the origins", None, live_a4),
)
