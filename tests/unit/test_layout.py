"""The layout that everything else relies on: which way imports point, and what must not be where."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MAY_IMPORT = {
    "contract": set[str](),
    "producers": {"contract"},
    "database": {"contract"},
    "optimizers": {"contract", "database"},
    "aggregator": {"contract", "database", "optimizers"},
    "exporter": {"contract", "database"},
    "streamgauge": {"contract", "producers", "database", "optimizers", "aggregator", "exporter"},
}

LIGHT = {"redis", "hiredis", "msgspec", "zstandard"}
"""Third-party packages of the base install."""

REFERENCE_APP = {"api.py", "traffic.py", "reference"}
"""Parts of producers/ that are an application, not the library: they may import a web framework."""


def imported(path: Path) -> set[str]:
    """Return the top-level names that a module imports, at its head or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def modules(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    forbidden = MAY_IMPORT.keys() - MAY_IMPORT[package] - {package}
    wrong = {str(p.relative_to(ROOT)): imported(p) & forbidden for p in modules(package) if imported(p) & forbidden}
    assert not wrong


@pytest.mark.parametrize("package", ["contract", "producers"])
def test_producer_side_imports_only_the_light_packages(package: str) -> None:
    known = LIGHT | set(sys.stdlib_module_names) | {"contract", "producers"}
    library = [p for p in modules(package) if p.relative_to(ROOT / package).parts[0] not in REFERENCE_APP]
    wrong = {str(p.relative_to(ROOT)): imported(p) - known for p in library if imported(p) - known}
    assert not wrong


@pytest.mark.parametrize("folder", ["redis", "nginx", "monitoring"])
def test_configuration_folders_hold_no_python(folder: str) -> None:
    # A package named `redis` in the project's root would hide redis-py.
    assert not list((ROOT / folder).rglob("*.py")) + list((ROOT / folder).rglob("*.pyi"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_files_stop_at_400_lines(package: str) -> None:
    assert not {str(p): n for p in modules(package) if (n := len(p.read_text().splitlines())) > 400}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_functions_stop_at_60_lines(package: str) -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert not long


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_modules_say_what_they_own(package: str) -> None:
    silent = [str(p.relative_to(ROOT)) for p in modules(package) if not ast.get_docstring(ast.parse(p.read_text()))]
    assert not silent


def test_lock_file_names_no_place() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert not [line for line in lines if "://" in line or line.startswith("-") or "@ " in line]
    assert sum("--hash=sha256:" in line for line in lines) > 500
