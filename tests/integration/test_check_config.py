"""`streamgauge check-config` as a person runs it: good settings, bad ones, servers that are set up wrongly."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from streamgauge.embedded import PostgresServer
from streamgauge.processes import free_port


def check(*options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these settings and no others of ours."""
    mine = ("STREAMGAUGE_", "POSTGRES_", "REDIS_URL")
    env = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    command = [sys.executable, "-m", "streamgauge", "check-config", *options]
    return subprocess.run(command, env=env | settings, capture_output=True, text=True, timeout=60)


def verdicts(run: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return what JSON said, by id."""
    assert run.stdout, run.stderr
    return {one["id"]: one for one in json.loads(run.stdout)["rules"]}


def test_good_settings_and_servers_pass(dsn: str, redis_url: str, tmp_path: Path) -> None:
    run = check("--format", "json", POSTGRES_DSN=dsn, REDIS_URL=redis_url, STREAMGAUGE_HOME=str(tmp_path))
    found = verdicts(run)
    wrong = {name for name, one in found.items() if one["status"] != "pass"}
    # Test servers do without a disk: that is told, and both are not taken for fine.
    assert wrong <= {"RE-disk", "PG-commit"}, found
    assert {"S-aggregator", "S-exporter", "S-producer", "PG-schema", "RE-policy", "RE-clock"} <= found.keys()
    assert run.returncode == int("PG-commit" in wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STREAMGAUGE_LEASE_S", "-1"),
        ("STREAMGAUGE_LEESE_S", "1"),
        ("STREAMGAUGE_EXPORTER_HOST", "0.0.0.0"),
        ("STREAMGAUGE_DERIVED_FILE", "/none/there.toml"),
        ("STREAMGAUGE_CHECKS_FILE", "/none/there.toml"),
        ("STREAMGAUGE_THRESHOLDS_FILE", "/none/there.toml"),
        ("STREAMGAUGE_FLUSH_INTERVAL_S", "soon"),
        ("REDIS_URL", "ftp://h"),
    ],
)
def test_a_bad_setting_is_named_and_ends_with_2(name: str, value: str, tmp_path: Path) -> None:
    run = check("--offline", **{"STREAMGAUGE_HOME": str(tmp_path), name: value})
    said = {"STREAMGAUGE_EXPORTER_HOST": "STREAMGAUGE_EXPORTER_TOKEN"}.get(name, name)
    assert (run.returncode, said in run.stderr) == (2, True), run.stderr
    assert "Traceback" not in run.stderr


def test_the_settings_of_one_service_alone(tmp_path: Path) -> None:
    bad = {"STREAMGAUGE_HOME": str(tmp_path), "STREAMGAUGE_EXPORTER_HOST": "0.0.0.0"}
    assert check("--offline", "--service", "aggregator", **bad).returncode == 0
    assert check("--offline", "--service", "exporter", **bad).returncode == 2


def test_a_schema_that_is_missing_and_a_server_that_evicts_are_faults(
    postgres_server: PostgresServer, redis_url: str, tmp_path: Path
) -> None:
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            where = {"POSTGRES_DSN": postgres_server.dsn("postgres"), "REDIS_URL": redis_url}
            run = check("--format", "json", STREAMGAUGE_HOME=str(tmp_path), **where)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    found = verdicts(run)
    assert run.returncode == 1
    assert (found["PG-schema"]["status"], "streamgauge migrate" in found["PG-schema"]["evidence"]) == ("fail", True)
    assert (found["RE-policy"]["status"], found["RE-policy"]["severity"]) == ("fail", "critical")


@pytest.mark.parametrize("away", ["POSTGRES_DSN", "REDIS_URL"])
def test_a_server_that_is_away_is_a_fault_and_the_other_is_judged(
    away: str, dsn: str, redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    nowhere = {"POSTGRES_DSN": f"postgresql://me:secret@127.0.0.1:{port}/x", "REDIS_URL": f"redis://127.0.0.1:{port}"}
    where = {"POSTGRES_DSN": dsn, "REDIS_URL": redis_url, away: nowhere[away], "STREAMGAUGE_HOME": str(tmp_path)}
    run = check("--format", "json", **where)
    found = verdicts(run)
    one = found["PG-answers" if away == "POSTGRES_DSN" else "RE-answers"]
    assert (run.returncode, run.stderr, one["status"], one["severity"]) == (1, "", "fail", "critical")
    assert f"127.0.0.1:{port} ({away})" in one["evidence"]
    assert "secret" not in run.stdout
    assert ("RE-policy" if away == "POSTGRES_DSN" else "PG-schema") in found
    assert "S-exporter" in found


def test_json_also_of_a_setting_that_cannot_be_used(tmp_path: Path) -> None:
    run = check("--offline", "--format", "json", STREAMGAUGE_HOME=str(tmp_path), STREAMGAUGE_LEASE_S="-1")
    assert (run.returncode, json.loads(run.stdout)["ok"]) == (2, False)
    assert "STREAMGAUGE_LEASE_S" in verdicts(run)["settings"]["evidence"]


def test_columns_are_as_wide_as_the_longest_id(tmp_path: Path) -> None:
    run = check("--offline", STREAMGAUGE_HOME=str(tmp_path))
    assert run.stdout.startswith("S-aggregator critical pass ")
    assert "\nS-exporter   critical pass " in run.stdout
