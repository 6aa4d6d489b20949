"""Starts that cannot succeed, or not yet: services say what is wrong, wait for what is away, obey a stop."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import redis

from streamgauge.embedded import PostgresServer
from streamgauge.processes import free_port, wait_until

NOBODY = {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": "1", "REDIS_URL": "redis://127.0.0.1:1/0"}


def start(command: str, settings: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    mine = ("STREAMGAUGE_", "POSTGRES_", "REDIS_URL")
    env = {name: value for name, value in os.environ.items() if not name.startswith(mine)} | dict(settings)
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "streamgauge", *command.split()], env=env, stdout=out, stderr=out, cwd=log.parent
        )


def end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


@pytest.mark.parametrize("command", ["aggregate", "export"])
@pytest.mark.parametrize("dsn", ["garbage", "database", "role"])
def test_an_address_that_can_never_work_ends_the_start(
    command: str, dsn: str, tmp_path: Path, servers_dsn: str
) -> None:
    given = {
        "garbage": "garbage",
        "role": servers_dsn.replace("streamgauge@", "nobody_here@"),
    }.get(dsn, servers_dsn.replace("/template1", "/no_such_database"))
    log = tmp_path / "log"
    process = start(command, {**NOBODY, "POSTGRES_DSN": given}, log)
    try:
        assert process.wait(30) == 2
    finally:
        end(process)
    assert "bad setting: POSTGRES_DSN" in log.read_text().splitlines()[-1]


@pytest.mark.parametrize("name", ["STREAMGAUGE_THRESHOLDS_FILE", "STREAMGAUGE_CHECKS_FILE"])
def test_a_bad_file_of_settings_ends_the_start(name: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[[threshold]]\nname = 1\n[Z9]\nx = 1\n")
    process = start("aggregate", {**NOBODY, name: str(tmp_path / "bad.toml")}, tmp_path / "log")
    try:
        assert process.wait(30) == 2
    finally:
        end(process)
    assert f"bad setting: {name}" in (tmp_path / "log").read_text().splitlines()[-1]


def test_a_redis_that_throws_keys_away_ends_the_start(dsn: str, redis_url: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as client:
        client.config_set("maxmemory-policy", "volatile-lru")
        process = start("aggregate", {"POSTGRES_DSN": dsn, "REDIS_URL": redis_url}, tmp_path / "log")
        try:
            assert process.wait(30) == 2
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            end(process)
    said = (tmp_path / "log").read_text().splitlines()[-1]
    assert "bad setting: REDIS_URL: this server has maxmemory-policy volatile-lru" in said


@pytest.fixture
def servers_dsn(postgres_server: PostgresServer) -> str:
    return postgres_server.dsn("template1")


@pytest.mark.parametrize("command", ["aggregate", "export"])
def test_a_server_that_is_away_is_waited_for_until_told_to_stop(command: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(command, NOBODY, log)
    try:
        assert wait_until(lambda: log.read_text().count("waiting_for") >= 2, 30)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) in (0, -signal.SIGTERM)
    finally:
        end(process)
    assert "Traceback" not in log.read_text()


def test_a_taken_port_is_named(dsn: str, redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        settings = {"POSTGRES_DSN": dsn, "REDIS_URL": redis_url, "STREAMGAUGE_EXPORTER_PORT": str(port)}
        process = start("export", settings, tmp_path / "log")
        try:
            assert process.wait(30) == 2
        finally:
            end(process)
    assert f"STREAMGAUGE_EXPORTER_PORT {port}" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("command", ["migrate", "audit", "tail --count 1", "explain x 2026-01-01T00:00:00Z"])
def test_a_command_says_in_one_line_that_a_server_is_away(command: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(command, NOBODY, log)
    try:
        assert process.wait(30) == 1
    finally:
        end(process)
    assert len(log.read_text().splitlines()) == 1, log.read_text()
