"""The built wheel inside somebody else's application, which has folders of the same names as ours."""

import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.stream_sums import read_streams

ROOT = Path(__file__).parents[2]
BASE = ("redis", "hiredis", "msgspec", "zstandard")

APPLICATION = """
import database, exporter, sys
from streamgauge import Counter, Gauge, Histogram

assert database.OWNER == exporter.OWNER == "the application", "its own packages come first"
served = Counter("served_total", "Requests served.", ["path"])
took = Histogram("took_seconds", "Time taken.")
queue = Gauge("queue_length", "Waiting.")
for number in range(10):
    served.labels("/a").inc()
    took.observe(number / 10)
queue.set(3)
ours = {name.partition(".")[0] for name in sys.modules} & {"aggregator", "optimizers", "numpy", "asyncpg", "fastapi"}
assert not ours, ours
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `build` makes it from the sources, without a network."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture
def clean_python(tmp_path: Path, wheel: Path) -> Path:
    """A new environment that holds the wheel and the packages of the base install, and nothing else."""
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for name in BASE:
        for file in distribution(name).files or []:
            if ".." not in file.parts and file.suffix != ".pyc":
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(Path(str(file.locate())).read_bytes())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return python


def test_wheel_emits_from_an_application_with_packages_of_our_names(
    clean_python: Path, tmp_path: Path, redis_url: str
) -> None:
    app = tmp_path / "app"
    for package in ("database", "exporter"):
        (app / package).mkdir(parents=True)
        (app / package / "__init__.py").write_text('OWNER = "the application"\n')
    (app / "redis").mkdir()
    (app / "redis" / "redis.conf").touch()
    (app / "main.py").write_text(APPLICATION)
    done = subprocess.run(
        [str(clean_python), "main.py"],
        cwd=app,
        env={"REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert read_streams(redis_url).events == 21


def test_wheel_holds_sql_and_type_markers(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{package}/py.typed" for package in ("contract", "producers", "database", "streamgauge")} <= names
    assert "database/migrations/0001_pipeline.sql" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "redis/", ".ci"))]
