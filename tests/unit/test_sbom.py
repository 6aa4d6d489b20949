"""The list of what is shipped: a package without hash, version or licence is told, so that CI ends."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sbom() -> Any:
    pytest.importorskip("cyclonedx", reason="needs the extra dev")
    spec = spec_from_file_location("sbom", ROOT / "scripts/sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def component(**changes: Any) -> dict[str, Any]:
    whole = {"name": "asyncpg", "version": "0.1", "externalReferences": [{"hashes": [{"alg": "SHA-256"}]}]}
    return {name: value for name, value in (whole | changes).items() if value is not None}


def test_a_package_with_everything_gets_its_licence(sbom: Any) -> None:
    one = component()
    assert sbom.faults([one]) == []
    assert "Apache" in one["licenses"][0]["license"]["name"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"externalReferences": None}, "asyncpg is locked without a hash"),
        ({"version": None}, "asyncpg has no fixed version"),
        ({"name": "no-such-package"}, "no-such-package declares no licence, or is not installed"),
    ],
)
def test_what_a_package_lacks_is_told(changes: dict[str, Any], said: str, sbom: Any) -> None:
    assert sbom.faults([component(**changes)]) == [said]


def test_a_package_for_another_system_needs_no_licence_here(sbom: Any) -> None:
    elsewhere = component(name="no-such-package", description="requirements line 1: x==1 ; sys_platform == 'win32'")
    assert sbom.faults([elsewhere]) == []
