"""Rules N1-N7: nginx, from its configuration (read by crossplane, nginx's own parser in Python) and from outside."""

import asyncio
import contextlib
import re
import ssl
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import crossplane  # pyright: ignore[reportMissingTypeStubs]

from streamgauge.hardening.files import Files, too_open
from streamgauge.hardening.live import ASK_S, EmptyAnswer, Live, Skip
from streamgauge.hardening.rule import Rule

CONF: Final = "nginx/nginx.conf"
CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
"""Of TLS 1.2: Mozilla's intermediate configuration, 6.0. Fewer will do, others will not."""

MODERN: Final = frozenset({"TLSv1.2", "TLSv1.3"})
HEADERS: Final = (
    "strict-transport-security",
    "x-content-type-options",
    "referrer-policy",
    "content-security-policy",
)
CLOSED: Final = ("/metrics", "/metrics/self", "/health/detailed", "/api/monitoring/jobs", "/stub_status")
SLOW_S: Final = 15
LEAST_DAYS: Final = 14
TIMEOUTS: Final = ("client_header_timeout", "client_body_timeout", "send_timeout")
STRANGER: Final = "stranger.invalid"

Block = Mapping[str, Any]


def blocks(files: Files) -> list[Block]:
    """Return the top of the configuration, included files in place."""
    path = files.path(CONF)
    parse = cast("Any", crossplane).parse
    found: Any = parse(str(path), combine=True, ignore=("include",) if _includes_away(path) else ())
    return cast("list[Block]", found["config"][0]["parsed"])


def _includes_away(path: Path) -> bool:
    """Whether it includes what only stands in the image, such as mime.types."""
    return bool(re.search(r"^\s*include\s+/", path.read_text(), re.MULTILINE))


def within(tree: Iterable[Block]) -> Iterator[Block]:
    """Yield every directive, outer ones first."""
    for one in tree:
        yield one
        yield from within(one.get("block") or ())


def named(tree: Iterable[Block], *names: str) -> list[Block]:
    """Return the directives of these names, wherever they stand."""
    return [one for one in within(tree) if one["directive"] in names]


def servers(tree: Iterable[Block]) -> list[Block]:
    """Return the server blocks; the servers of an upstream are lines without one."""
    return [one for one in named(tree, "server") if "block" in one]


def n1(files: Files) -> Iterable[str]:
    """Protocols, and 80 leads to 443."""
    tree = blocks(files)
    protocols = [set(one["args"]) for one in named(tree, "ssl_protocols")]
    if not protocols:
        yield "ssl_protocols is not set"
    yield from (f"allows {name}" for one in protocols for name in sorted(one - MODERN))
    ciphers = [set(one["args"][0].split(":")) for one in named(tree, "ssl_ciphers")]
    if not ciphers:
        yield "ssl_ciphers is not set"
    yield from (f"allows {name}" for one in ciphers for name in sorted(one.difference(CIPHERS)))
    plain = [one for one in servers(tree) if _listens(one, "80") or _listens(one, "8080")]
    if not any(args[:1] in (["301"], ["308"]) for args in (one["args"] for one in named(plain, "return"))):
        yield "http is not led to https"


def _listens(server: Block, port: str) -> bool:
    told = (one["args"][0] for one in server["block"] if one["directive"] == "listen")
    return any(text == port or text.endswith(f":{port}") for text in told)


def n2(files: Files) -> Iterable[str]:
    """Headers: an add_header in a location drops all that it would inherit."""
    for server in _secure(files):
        outer = _headers(server["block"])
        yield from (f"the server sends no {name}" for name in missing(outer))
        for location in named(server["block"], "location"):
            own = _headers(location["block"])
            lost = missing(own) if own else []
            yield from (f"location {' '.join(location['args'])} drops {name}" for name in lost)


def missing(headers: Mapping[str, str]) -> list[str]:
    """Return which of the security headers are not there; names are in lower case."""
    found = [name for name in HEADERS if name not in headers]
    may_be_framed = "frame-ancestors" not in headers.get("content-security-policy", "")
    return found + (
        ["x-frame-options or frame-ancestors"] if may_be_framed and "x-frame-options" not in headers else []
    )


def _secure(files: Files) -> list[Block]:
    """Return servers that answer with TLS, but the one that closes at once."""
    found = servers(blocks(files))
    return [one for one in found if _has_tls(one) and not _is_closed(one)]


def _has_tls(server: Block) -> bool:
    return any("ssl" in one["args"] for one in server["block"] if one["directive"] == "listen")


def _is_closed(server: Block) -> bool:
    return any(one["directive"] == "return" and one["args"][:1] == ["444"] for one in server["block"]) or any(
        one["directive"] == "ssl_reject_handshake" and one["args"] == ["on"] for one in server["block"]
    )


def _headers(block: Iterable[Block]) -> dict[str, str]:
    return {one["args"][0].lower(): one["args"][1] for one in block if one["directive"] == "add_header"}


def n3(files: Files) -> Iterable[str]:
    """No version, and no answer for other names."""
    tree = blocks(files)
    if not any(one["args"] == ["off"] for one in named(tree, "server_tokens")):
        yield "server_tokens is not off"
    if not any(_is_closed(one) for one in servers(tree)):
        yield "no server closes requests for other names (return 444)"


def n4(files: Files) -> Iterable[str]:
    """Limits, where requests are passed on: of rate and body everywhere, of connections where sockets are opened."""
    outer = {one["directive"] for block in named(blocks(files), "http") for one in block["block"]}
    for server in _secure(files):
        of_server = outer | {one["directive"] for one in server["block"]}
        for location in named(server["block"], "location"):
            own = {one["directive"] for one in location["block"]}
            if "proxy_pass" not in own:
                continue
            passes_upgrade = any(
                one["directive"] == "proxy_set_header" and one["args"][0].lower() == "upgrade"
                for one in location["block"]
            )
            wanted = ("limit_req", "client_max_body_size", *(("limit_conn",) if passes_upgrade else ()))
            lacks = [name for name in wanted if name not in of_server | own]
            yield from (f"location {' '.join(location['args'])} has no {name}" for name in lacks)


def n5(files: Files) -> Iterable[str]:
    """Slow clients."""
    tree = blocks(files)
    for name in TIMEOUTS:
        found = named(tree, name)
        if not found:
            yield f"{name} is not set (60 s)"
        yield from (f"{name} {one['args'][0]}" for one in found if seconds(one["args"][0]) > SLOW_S)


def seconds(text: str) -> float:
    """Return a time as nginx writes it: 15, 15s, 2m, 500ms."""
    found = re.fullmatch(r"(\d+)(ms|s|m|h|)", text)
    return int(found[1]) * {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600}[found[2]] if found else float("inf")


def n6(files: Files) -> Iterable[str]:
    """Paths that are not for outside."""
    found = _secure(files)
    if not found:
        yield "no server answers with TLS"
    for server in found:
        for path in CLOSED:
            taken = _taken_by(path, named(server["block"], "location"))
            if taken is None or not any(
                one["directive"] == "return" and one["args"][0] in ("403", "404") for one in taken["block"]
            ):
                yield f"{path} is not closed"


def _taken_by(path: str, locations: list[Block]) -> Block | None:
    """Return the location that nginx takes: exact, then a regular expression, then the longest beginning."""
    regular: Block | None = None
    longest: tuple[int, Block] | None = None
    for one in locations:
        modifier, pattern = one["args"] if len(one["args"]) == 2 else ("", one["args"][0])
        if modifier == "=" and pattern == path:
            return one
        if modifier in ("~", "~*"):
            matches = re.search(pattern, path, re.IGNORECASE if modifier == "~*" else 0)
            regular = regular or (one if matches else None)
        elif modifier in ("", "^~") and path.startswith(pattern) and (longest is None or len(pattern) > longest[0]):
            longest = len(pattern), one
    if longest is not None and longest[1]["args"][0] == "^~":
        return longest[1]
    return regular or (longest[1] if longest else None)


def n7(files: Files) -> Iterable[str]:
    """Keys are private; certificates last."""
    folders = files.certificate_folders()
    keys = [path for folder in folders for path in sorted(folder.glob("*.key"))]
    if not keys:
        raise Skip("no key is made yet: scripts/bootstrap.sh makes them")
    for path in keys:
        if mode := too_open(path):
            yield f"{path.relative_to(files.root)} has mode {mode}"
    for path in (path for folder in folders for path in sorted(folder.glob("*.crt"))):
        left = days_left(path)
        if left < LEAST_DAYS:
            yield f"{path.relative_to(files.root)} expires in {left:.0f} days"


def days_left(certificate: Path) -> float:
    """Return how long a certificate is still valid."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate)
    ends = [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in context.get_ca_certs()]
    return (min(ends) - time.time()) / 86_400 if ends else float("inf")


async def live_n1(live: Live) -> Iterable[str]:
    """Old protocols and other ciphers are refused, and http leads to https."""
    at = urlsplit(live.named("edge"))
    await live.get(f"{live.edge}/healthz")
    plain = live.edge_http or f"http://{at.hostname}"
    answer = await live.get(f"{plain}/")
    is_led = answer.status in (301, 308) and answer.headers.get("location", "").startswith("https://")
    found = [] if is_led else [f"{plain} answers {answer.status} and does not lead to https"]
    others = ":".join(["ALL", *(f"!{name}" for name in CIPHERS)])
    for version, ciphers in (
        (ssl.TLSVersion.TLSv1, "DEFAULT"),
        (ssl.TLSVersion.TLSv1_1, "DEFAULT"),
        (ssl.TLSVersion.TLSv1_2, others),
    ):
        context = _only(version, ciphers, live.trusted())
        with contextlib.suppress(OSError):
            async with asyncio.timeout(ASK_S):
                _, writer = await asyncio.open_connection(at.hostname, at.port or 443, ssl=context)
                cipher, _, _ = writer.get_extra_info("cipher")
                await _close(writer)
            found.append(f"{version.name} with {cipher} is accepted")
    return found


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _only(version: ssl.TLSVersion, ciphers: str, context: ssl.SSLContext) -> ssl.SSLContext:
    """Return a context that speaks one version: to ask for an old one is deprecated, and what is wanted here."""
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    return context


async def live_n2(live: Live) -> Iterable[str]:
    """Headers of what is there and what is not."""
    faults: list[str] = []
    for path in ("/healthz", "/metrics", "/no-such-page"):
        headers = (await live.get(f"{live.named('edge')}{path}")).headers
        faults += [f"{path} comes without {name}" for name in missing(headers)]
    return faults


async def live_n3(live: Live) -> Iterable[str]:
    """No version, and no answer for other names."""
    headers = (await live.get(f"{live.named('edge')}/no-such-page")).headers
    faults = [f"Server: {headers['server']}"] if re.search(r"\d", headers.get("server", "")) else []
    context = live.trusted()
    # The certificate will not be for that name: the question is whether anything is said at all.
    context.check_hostname = False
    try:
        answer = await live.get(f"{live.edge}/", {"Host": STRANGER}, tls=context, name=STRANGER)
    except (OSError, EmptyAnswer):
        return faults
    return [*faults, f"a request for {STRANGER} is answered {answer.status}"]


async def live_n6(live: Live) -> Iterable[str]:
    """Paths that are not for outside."""
    found = {path: (await live.get(f"{live.named('edge')}{path}")).status for path in CLOSED}
    return [f"{path} answers {status}" for path, status in found.items() if status not in (403, 404)]


async def live_n7(live: Live) -> Iterable[str]:
    """The certificate in use."""
    at = urlsplit(live.named("edge"))
    async with asyncio.timeout(ASK_S):
        try:
            _, writer = await asyncio.open_connection(at.hostname, at.port or 443, ssl=live.trusted())
        except ssl.SSLCertVerificationError as error:
            return [f"the certificate is not to be trusted: {error.verify_message}"]
        certificate = writer.get_extra_info("peercert")
        await _close(writer)
    left = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / 86_400
    return [f"the certificate expires in {left:.0f} days"] if left < LEAST_DAYS else []


RULES: Final = (
    Rule("N1", "critical", "TLS 1.2 or newer, and http leads to https", "ssl_protocols TLSv1.2 TLSv1.3", n1, live_n1),
    Rule("N2", "warning", "every location sends the security headers", "include the headers again", n2, live_n2),
    Rule(
        "N3", "warning", "no version is told, other names get no answer", "server_tokens off; return 444", n3, live_n3
    ),
    Rule("N4", "warning", "requests, connections and bodies are limited", "limit_req, limit_conn", n4),
    Rule("N5", "warning", "slow clients are cut off", "client_header_timeout 15s …", n5),
    Rule("N6", "critical", "metrics and administration are closed from outside", "return 404", n6, live_n6),
    Rule("N7", "critical", "keys are private, certificates last", "chmod 0400; renew", n7, live_n7),
)
