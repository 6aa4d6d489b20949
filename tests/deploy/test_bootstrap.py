"""scripts/bootstrap.sh: secrets and development certificates are made once, and each is its reader's alone."""

import os
import re
from pathlib import Path

import pytest
import yaml

from database.replicas import read_replicas
from database.settings import read_settings
from optimizers.settings import OptimizerSettings
from optimizers.targets import read_targets
from tests.composed import bootstrap, compose
from tests.watching import ROOT


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What bootstrap.sh makes."""
    folder = tmp_path_factory.mktemp("bootstrap") / "secrets"
    bootstrap(folder)
    return folder


def test_secrets_are_made_once_and_readable_by_their_service_only(secrets: Path) -> None:
    before = {path: path.read_bytes() for path in secrets.rglob("*") if path.is_file()}
    assert "0 files made" in bootstrap(secrets)
    assert {path: path.read_bytes() for path in secrets.rglob("*") if path.is_file()} == before
    public = {".crt"}
    modes = {path.name: path.stat().st_mode & 0o777 for path in before if path.suffix not in public}
    assert set(modes.values()) == {0o400}
    assert all(b"\n" not in content.rstrip(b"\n") for path, content in before.items() if path.name.endswith("password"))
    mounted = yaml.safe_dump(compose())
    assert "ca.key" not in mounted


def test_addresses_of_replicas_are_ones_that_services_take(secrets: Path) -> None:
    monitored = read_replicas((secrets / "exporter/postgres_replicas").read_text())
    environ = {"STREAMGAUGE_OPTIMIZER_REPLICAS_FILE": str(secrets / "aggregator/optimizer_replicas")}
    (target,) = read_targets(read_settings(OptimizerSettings, environ))
    looked_at = [str(address.parts["dsn"]) for address in target.replicas]
    for number in (1, 2):
        assert f"@postgres-replica-{number}:5432/" in looked_at[number - 1]
        assert "streamgauge_optimizer:" in looked_at[number - 1]
    assert len(monitored) == len(looked_at) == 2


def test_a_password_that_was_removed_is_made_anew_and_all_that_is_made_of_it(secrets: Path) -> None:
    before = {path: path.read_text() for path in secrets.rglob("*") if path.is_file()}
    gone = [secrets / "redis/redis_producer_password", secrets / "postgres/postgres_exporter_password"]
    gone.append(secrets / "exporter/exporter_token")
    for path in gone:
        path.unlink()
    assert "3 files made" in bootstrap(secrets)
    after = {path: path.read_text() for path in secrets.rglob("*") if path.is_file()}
    renewed = {str(path.relative_to(secrets)) for path, text in after.items() if text != before[path]}
    made_of_it = {
        "api/redis_url",
        "exporter/postgres_password",
        "exporter/postgres_replicas",
        "prometheus/exporter_token",
    }
    assert renewed == made_of_it | {str(path.relative_to(secrets)) for path in gone}
    assert {path.stat().st_mode & 0o777 for path in after if path.suffix != ".crt"} == {0o400}
    old = [before[path].strip() for path in gone]
    assert not [path for path, text in after.items() if any(one in text for one in old)]


def test_the_users_of_secrets_are_those_of_the_services() -> None:
    """bootstrap.sh gives each file to a number: that of the service which mounts it."""
    text = (ROOT / "scripts/bootstrap.sh").read_text()
    given = dict(re.findall(r"\| (?:keep|derive) \"?([\w/${}]+)\"? (\d+)", text))
    found = compose()
    wanted: dict[str, set[str]] = {}
    for service in found["services"].values():
        for one in service.get("secrets", []):
            source = one if isinstance(one, str) else one["source"]
            wanted.setdefault(found["secrets"][source]["file"].removeprefix("./secrets/"), set()).add(
                service["user"].partition(":")[0]
            )
    patterns = {re.compile(re.sub(r"\$\{?\w+\}?", r"\\w+", name) + "$"): uid for name, uid in given.items()}
    for file, users in wanted.items():
        exact = {given[file]} if file in given else set[str]()
        assert (exact or {uid for pattern, uid in patterns.items() if pattern.match(file)}) == users, file


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others: OWNERS ARE NOT CHECKED")
def test_each_secret_and_key_belongs_to_the_user_of_its_service(secrets: Path) -> None:
    found = compose()
    for name, service in found["services"].items():
        files = [
            found["secrets"][one if isinstance(one, str) else one["source"]]["file"]
            for one in service.get("secrets", [])
        ]
        paths = [secrets / file.removeprefix("./secrets/") for file in files]
        for volume in service.get("volumes", []):
            paths += (secrets / volume.split(":")[0].removeprefix("./secrets/")).glob("*.key")
        assert {path.stat().st_uid for path in paths} <= {int(service["user"].split(":")[0])}, name
    keys = {path.relative_to(secrets).as_posix(): path.stat().st_uid for path in secrets.rglob("*.key")}
    nodes = {f"tls/postgres-{node}/postgres.key": 999 for node in ("primary", "replica-1", "replica-2")}
    assert keys == {"nginx/server.key": 101, "tls/ca.key": 0, **nodes}
