"""Settings: every name is known and documented, and a bad one is named."""

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from aggregator.settings import AggregatorSettings
from database.settings import KNOWN_NAMES, PostgresSettings, SettingsError, read_settings
from exporter.settings import ExporterSettings

ROOT = Path(__file__).parents[3]


def subclasses(model: type[BaseSettings]) -> set[type[BaseSettings]]:
    return {model} | {found for child in model.__subclasses__() for found in subclasses(child)}


def test_every_field_of_every_service_is_a_known_name() -> None:
    """A name that one service reads must not be refused by another that shares its environment."""
    models = (AggregatorSettings, ExporterSettings)
    fields = {name.upper() for model in models for name in model.model_fields}
    assert {name for name in fields if name.startswith("STREAMGAUGE_")} <= KNOWN_NAMES


def test_every_known_name_is_documented_and_nothing_else() -> None:
    """docs/settings.md lists exactly the names there are."""
    documented = set(re.findall(r"`(STREAMGAUGE_[A-Z0-9_]*[A-Z0-9])`", (ROOT / "docs/settings.md").read_text()))
    assert documented == KNOWN_NAMES


@pytest.mark.parametrize("value", ["2x", "d", "two days", ""])
def test_a_bad_duration_says_what_a_good_one_looks_like(value: str) -> None:
    with pytest.raises(SettingsError, match="STREAMGAUGE_RETENTION_10S: expected seconds, or a duration such as 2d"):
        read_settings(AggregatorSettings, {"STREAMGAUGE_RETENTION_10S": value})


def test_unknown_name_is_refused_by_its_name() -> None:
    """A misspelt setting must not silently do nothing."""
    with pytest.raises(SettingsError, match="STREAMGAUGE_LAESE_S: no such setting"):
        read_settings(AggregatorSettings, {"STREAMGAUGE_LAESE_S": "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("STREAMGAUGE_LEASE_S", "0"), ("STREAMGAUGE_SHARDS", "65"), ("POSTGRES_PORT", "x"), ("STREAMGAUGE_LEASE_S", "")],
)
def test_bad_value_is_refused_by_its_name(name: str, value: str) -> None:
    """The message begins with the setting."""
    with pytest.raises(SettingsError, match=f"^{name}: "):
        read_settings(AggregatorSettings, {name: value})


def test_file_variant_reads_a_secret(tmp_path: Path) -> None:
    """`NAME_FILE` names a file whose content, without the last newline, is the value."""
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    settings = read_settings(PostgresSettings, {"POSTGRES_PASSWORD_FILE": str(secret)})
    assert settings.postgres_password is not None
    assert settings.postgres_password.get_secret_value() == "s3cret"


def test_missing_file_is_named() -> None:
    """A secret's file that is not there is a bad setting."""
    with pytest.raises(SettingsError, match="POSTGRES_PASSWORD_FILE"):
        read_settings(PostgresSettings, {"POSTGRES_PASSWORD_FILE": "/nowhere/at/all"})
