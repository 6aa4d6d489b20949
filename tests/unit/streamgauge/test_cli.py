"""The command line: exit codes, and that a command pays only for itself."""

import subprocess
import sys

import pytest

from streamgauge.cli import main
from streamgauge.commands import COMMANDS


def test_no_command_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_help_lists_every_command_without_importing_one() -> None:
    code = "import sys; from streamgauge.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print({name for name in sys.modules if name.startswith('streamgauge.commands.')} or 'none imported')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.endswith("none imported\n")
    assert all(f"\n    {name}" in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_describes_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"streamgauge {name}" in capsys.readouterr().out


def test_a_package_that_is_missing_is_installed_from_a_checkout() -> None:
    code = "import sys; sys.modules['asyncpg'] = None; from streamgauge.cli import main; sys.exit(main(['audit']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, "needs the package asyncpg: pip install '.[embedded]'" in done.stderr) == (2, True)


def test_bad_port_names_its_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("STREAMGAUGE_API_PORT", "eighty")
    assert main(["up"]) == 2
    assert "STREAMGAUGE_API_PORT" in capsys.readouterr().err


def test_status_of_nothing_is_a_fault(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("STREAMGAUGE_HOME", str(home))
    assert main(["status", "--json"]) == 1
    assert capsys.readouterr().out == '{"up": false}\n'
    assert (main(["status"]), main(["down"])) == (1, 0)
    assert capsys.readouterr().out == f"nothing is up in {home}\n" * 2


@pytest.mark.parametrize(
    ("command", "settings", "said"),
    [
        (
            "audit",
            {"POSTGRES_DSN": "postgresql://me:secret@h.invalid:5433/x"},
            "PostgreSQL at h.invalid:5433 (POSTGRES_DSN): gai",
        ),
        (
            "migrate",
            {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": "1"},
            "PostgreSQL at 127.0.0.1:1 (POSTGRES_HOST): Conn",
        ),
        ("tail", {"REDIS_URL": "redis://me:secret@127.0.0.1:1/0"}, "Redis at 127.0.0.1:1 (REDIS_URL): Conn"),
        ("alive", {"POSTGRES_PORT": "1"}, "nothing is up in {home}, and POSTGRES_DSN is not set"),
    ],
)
def test_a_server_that_is_away_is_named_with_its_setting_and_without_its_password(
    command: str, settings: dict[str, str], said: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    env = {"STREAMGAUGE_HOME": str(home), **settings}
    done = subprocess.run(
        [sys.executable, "-m", "streamgauge", command], env=env, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr.count("\n"), said.format(home=home) in done.stderr) == (1, 1, True), (
        done.stderr
    )
    assert "secret" not in done.stderr
