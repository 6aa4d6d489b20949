"""What is shipped, as a CycloneDX list: every package of services.lock with version, hashes and licence.

In: services.lock, and the metadata of what is installed from it. Out: dist/sbom.cdx.json. Exit code 1: the list breaks
CycloneDX's schema, or a package lacks its hash or licence. Needs no network.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT: Final = Path(__file__).parent.parent
LOCK: Final = ROOT / "services.lock"
OUT: Final = ROOT / "dist/sbom.cdx.json"
GENERATE_S: Final = 120.0
CLASSIFIER: Final = "License :: "


def generated() -> dict[str, Any]:
    """Return what CycloneDX's own program makes of the lock file: names, versions, hashes."""
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", str(LOCK), "--output-reproducible", "--of", "JSON"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=GENERATE_S)
    return json.loads(done.stdout)


def licence_of(name: str) -> str | None:
    """Return the licence that an installed package declares; None: it declares none, or is not installed."""
    try:
        found: Any = metadata(name)
    except PackageNotFoundError:
        return None
    if expression := found.get("License-Expression"):
        return str(expression)
    classifiers: list[str] = found.get_all("Classifier") or []
    told = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith(CLASSIFIER)]
    own = str(found.get("License") or "").strip().partition("\n")[0]
    return " AND ".join(told) or own[:100] or None


def is_elsewhere(component: Mapping[str, Any]) -> bool:
    """Whether the lock has it for another system or Python only, so that it is not installed here."""
    return " ; " in component.get("description", "").partition("--hash")[0]


def faults(components: list[dict[str, Any]]) -> list[str]:
    """Add each licence; return a sentence for each package that lacks something."""
    found: list[str] = []
    for one in components:
        licence = licence_of(one["name"])
        if licence is not None:
            one["licenses"] = [{"license": {"name": licence}}]
        elif not is_elsewhere(one):
            found.append(f"{one['name']} declares no licence, or is not installed")
        if not any(reference.get("hashes") for reference in one.get("externalReferences", [])):
            found.append(f"{one['name']} is locked without a hash")
        if "version" not in one:
            found.append(f"{one['name']} has no fixed version")
    return found


def main() -> int:
    """Write the list; say what is wrong with it."""
    listed = generated()
    wrong = faults(listed["components"])
    text = json.dumps(listed, indent=2, sort_keys=True) + "\n"
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    wrong += [f"against the schema: {error!r}"] if error is not None else []
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(text)
    for each in wrong:
        print(f"sbom: {each}", file=sys.stderr)
    print(f"sbom: {len(listed['components'])} packages in {OUT.relative_to(ROOT)}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
