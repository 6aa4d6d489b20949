"""TLS to one Redis: a producer and the services' link trust the authority that the address names, and no other."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from contract.streams import SHARD_COUNT_KEY
from database.redis_link import open_link
from database.settings import RedisSettings
from producers.sender import open_link as open_producer_link
from producers.settings import Settings
from streamgauge.embedded import find_redis
from streamgauge.processes import free_port, last_lines, start, stop, wait_until

HOST = "127.0.0.1"


def make_certificate(folder: Path, name: str, *extra: str) -> None:
    """Make a key and a certificate: its own authority, unless `extra` names another."""
    key = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt"), "-days", "2")
    subprocess.run([*key, *files, "-subj", f"/CN={name}", *extra], check=True, capture_output=True, timeout=60)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A Redis that answers on a TLS port only."""
    make_certificate(tmp_path, "ca")
    make_certificate(tmp_path, "other")
    signed = ("-CA", str(tmp_path / "ca.crt"), "-CAkey", str(tmp_path / "ca.key"))
    make_certificate(tmp_path, "redis", *signed, "-addext", f"subjectAltName=IP:{HOST}")
    found, log = free_port(), tmp_path / "redis.log"
    command = (
        *(find_redis() or "redis-server", "--port", "0", "--tls-port", str(found), "--bind", HOST, "--save", ""),
        *("--dir", str(tmp_path), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(tmp_path / "ca.crt")),
        *("--tls-cert-file", str(tmp_path / "redis.crt"), "--tls-key-file", str(tmp_path / "redis.key")),
    )
    process = start(command, log)
    try:
        assert wait_until(lambda: "Ready to accept connections" in log.read_text(), 10), last_lines(log)
        yield found
    finally:
        stop(process, signal.SIGTERM, 10)


def address(folder: Path, port: int, authority: str) -> str:
    """Return the address that a service is given."""
    return f"rediss://{HOST}:{port}/0?ssl_ca_certs={folder}/{authority}.crt"


def producer_link(url: str) -> Any:
    """Return what a producer sends by."""
    return open_producer_link(Settings(redis_url=url))


async def answer(url: str) -> Any:
    """Return what the services' link is answered."""
    link = open_link(RedisSettings.model_validate({"redis_url": url}))
    try:
        return await link.ping()
    finally:
        await link.aclose()


async def test_producers_and_services_talk_tls_with_the_named_authority(tmp_path: Path, port: int) -> None:
    url = address(tmp_path, port, "ca")
    with producer_link(url) as link:
        assert link.set(SHARD_COUNT_KEY, 2)
    assert await answer(url) is True


async def test_a_certificate_of_another_authority_is_refused(tmp_path: Path, port: int) -> None:
    url = address(tmp_path, port, "other")
    with producer_link(url) as link, pytest.raises(RedisError, match="certificate verify failed"):
        link.ping()
    with pytest.raises(RedisError, match="certificate verify failed"):
        await answer(url)


async def test_a_certificate_for_another_host_is_refused(tmp_path: Path, port: int) -> None:
    """The address names a host that the certificate is not for."""
    url = address(tmp_path, port, "ca").replace(HOST, "localhost")
    with producer_link(url) as link, pytest.raises(RedisError, match="certificate verify failed"):
        link.ping()
    with pytest.raises(RedisError, match="certificate verify failed"):
        await answer(url)


async def test_plain_text_is_refused(tmp_path: Path, port: int) -> None:
    url = address(tmp_path, port, "ca").replace("rediss://", "redis://").partition("?")[0]
    with producer_link(url) as link, pytest.raises(RedisError):
        link.ping()
    with pytest.raises(RedisError):
        await answer(url)
