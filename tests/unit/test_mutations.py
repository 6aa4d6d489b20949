"""Each mutation of `make mutations` still takes a mechanism away: its text is what runs, and its test exists."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def load() -> Any:
    spec = spec_from_file_location("mutations", ROOT / "scripts/mutations.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MUTATIONS = {mutation.name: mutation for mutation in load().MUTATIONS}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_changes_one_place_which_is_in_use(name: str) -> None:
    mutation = MUTATIONS[name]
    file = ROOT / mutation.file
    assert file.read_text().count(mutation.before) == 1
    if file.parent.name == "migrations":
        # A later migration that defines the function anew would make the change mean nothing.
        later = [other for other in file.parent.glob("*.sql") if other.name > file.name]
        before, _, _ = file.read_text().partition(mutation.before)
        function = re.findall(r"FUNCTION (\w+)\(", before)[-1]
        assert not [other.name for other in later if f"FUNCTION {function}(" in other.read_text()]


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_test_of_a_mutation_exists(name: str) -> None:
    file, _, test = MUTATIONS[name].test.partition("::")
    assert f"def {test}" in (ROOT / file).read_text()
