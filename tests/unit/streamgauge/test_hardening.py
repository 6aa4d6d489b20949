"""Hardening rules on files: a small deployment that holds every rule, and one deliberate fault for each."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from streamgauge.hardening.__main__ import RULES, check_files, main
from streamgauge.hardening.nginx_rules import CIPHERS
from streamgauge.hardening.report import exit_code
from streamgauge.hardening.rule import Status, Verdict
from tests.hardened import GOOD, KEYS, SECRET, write

SAFE = "docker-compose.scale.yml"
CONF = "database/postgresql.conf"
BROKEN: dict[str, tuple[str, str, str]] = {
    "D1": (SAFE, '    user: "101"', '    user: "101"\n    pid: host'),
    "D2": (SAFE, "cap_add: [CHOWN,", "cap_add: [SYS_ADMIN,"),
    "D3": (SAFE, "no-new-privileges:true", "no-new-privileges:false"),
    "D4": (SAFE, "read_only: true", "read_only: false"),
    "D5": (SAFE, ", pids: 100", ""),
    "D6": (SAFE, 'user: "101"', 'user: "0:0"'),
    "D7": (SAFE, "healthcheck: {test: [CMD, check]}", "healthcheck: {disable: true}"),
    "D8": (SAFE, '["./secrets/nginx', '["/var/run/docker.sock:/s:ro", "./secrets/nginx'),
    "D9": (SAFE, '"80:8080"', '"5432:5432"'),
    "D10": (SAFE, "nginx:1.28@sha256:0123", "nginx:latest"),
    "D11": (SAFE, "POSTGRES_PASSWORD_FILE: /run/secrets/x", "POSTGRES_PASSWORD: hunter2"),
    "D12": (SAFE, "data: {internal: true}", "data: {}"),
    "D13": (SAFE, "restart: unless-stopped", "stop_grace_period: 1s"),
    "D14": (SAFE, '"no-new-privileges:true"', '"no-new-privileges:true", "seccomp=unconfined"'),
    "P1": (CONF, "password_encryption = scram-sha-256", "password_encryption = md5"),
    "P2": ("database/pg_hba.conf", "hostssl streamgauge", "host streamgauge"),
    "P3": (CONF, "ssl = on", "ssl = off"),
    "P7": (CONF, "log_lock_waits = on", "log_lock_waits = off"),
    "P8": ("database/roles.sql", "SET statement_timeout", "SET lock_timeout"),
    "P9": (CONF, "full_page_writes = on", "full_page_writes = off"),
    "P11": (CONF, "max_slot_wal_keep_size = 8GB", ""),
    "R1": ("redis/users.acl", "user default off", "user default on nopass"),
    "R2": ("redis/users.acl", "+xadd", "+xadd +flushall"),
    "R3": ("redis/sentinel.conf", "protected-mode yes", ""),
    "R4": ("redis/redis.conf", "appendonly yes", "appendonly yes\nenable-debug-command yes"),
    "R5": (SAFE, "networks: [data]}\n  sentinel-1", "networks: [front]}\n  sentinel-1"),
    "R6": ("redis/redis.conf", "maxmemory 600mb", "maxmemory 900mb"),
    "R7": ("redis/sentinel.conf", "6379 2", "6379 1"),
    "N1": ("nginx/nginx.conf", "ssl_protocols TLSv1.2", "ssl_protocols TLSv1.1 TLSv1.2"),
    "N2": ("nginx/nginx.conf", "location / {", "location / { add_header X-A b;"),
    "N3": ("nginx/nginx.conf", "server_tokens off", "server_tokens on"),
    "N4": ("nginx/nginx.conf", " limit_conn c 10;", ""),
    "N5": ("nginx/nginx.conf", "client_body_timeout 10s", "client_body_timeout 2m"),
    "N6": ("nginx/nginx.conf", "metrics|", ""),
    "A1": (SAFE, 'GF_AUTH_ANONYMOUS_ENABLED: "false"', 'GF_AUTH_ANONYMOUS_ENABLED: "true"'),
    "A2": (SAFE, "--config.file=x", "--web.enable-admin-api"),
}
ALSO = {"R5": {"D12"}, "D12": {"R5"}}
"""Two rules look at the same fault from two sides."""
LIVE_ONLY = {"P4", "P5", "P6", "P10", "P12", "A3", "A4"}


def judged(root: Path) -> dict[str, Verdict]:
    """Return verdicts by rule."""
    return {one.id: one for one in check_files(root)}


def test_ids_are_those_of_the_list() -> None:
    groups = {"D": 14, "P": 12, "R": 7, "N": 7, "A": 4}
    assert [rule.id for rule in RULES] == [f"{name}{n}" for name, most in groups.items() for n in range(1, most + 1)]
    assert {rule.id for rule in RULES if rule.static is None} == LIVE_ONLY
    assert BROKEN.keys() | LIVE_ONLY | {"N7"} == {rule.id for rule in RULES}


def test_a_careful_deployment_holds_every_rule_and_skip_is_no_pass(tmp_path: Path) -> None:
    found = judged(write(tmp_path))
    assert {name for name, one in found.items() if one.status is Status.SKIP} == LIVE_ONLY
    others = {name: one for name, one in found.items() if name not in LIVE_ONLY}
    assert {one.status for one in others.values()} == {Status.PASS}, [one for one in others.values() if one.fix]
    assert exit_code(list(found.values())) == 0


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_is_found_by_its_rule_alone(name: str, tmp_path: Path) -> None:
    found = judged(write(tmp_path, BROKEN[name]))
    assert {one.id for one in found.values() if one.status is Status.FAIL} == {name} | ALSO.get(name, set())
    assert found[name].evidence
    assert found[name].fix
    assert exit_code(list(found.values())) == int(found[name].severity == "critical" or name in ALSO)


def test_an_image_that_is_pinned_by_its_tag_only_is_said_to_be(tmp_path: Path) -> None:
    found = judged(write(tmp_path, (SAFE, "nginx:1.28@sha256:0123", "nginx:1.28${NGINX_DIGEST:-}")))["D10"]
    assert (found.status, found.severity, found.evidence) == (Status.FAIL, "warning", "tag only: nginx:1.28")
    (tmp_path / ".env").write_text("NGINX_DIGEST=@sha256:0123\n")
    assert judged(tmp_path)["D10"].status is Status.PASS


def test_what_is_shipped_is_pinned_when_env_has_the_digests(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    for name in (SAFE, "Dockerfile"):
        shutil.copy(root / name, tmp_path)
    names = set(re.findall(r"\$\{(\w+_DIGEST)", (root / SAFE).read_text()))
    assert len(names) == 13
    (tmp_path / ".env").write_text("".join(f"{name}=@sha256:{number:064x}\n" for number, name in enumerate(names)))
    assert judged(tmp_path)["D10"].status is Status.PASS
    for name in names:
        lines = [f"{other}=@sha256:0\n" for other in names - {name}]
        (tmp_path / ".env").write_text("".join(lines))
        assert judged(tmp_path)["D10"].evidence.startswith("tag only: "), name


def test_a_cipher_that_mozilla_does_not_list_is_found(tmp_path: Path) -> None:
    good = "ECDHE-RSA-AES128-GCM-SHA256"
    for cipher in ("ECDHE-RSA-AES128-SHA256", "HIGH", "DHE-RSA-AES128-GCM-SHA256"):
        found = judged(write(tmp_path, ("nginx/nginx.conf", good, f"{good}:{cipher}")))["N1"]
        assert (found.status, found.evidence) == (Status.FAIL, f"allows {cipher}")


def test_what_is_shipped_allows_the_ciphers_of_mozillas_intermediate_configuration() -> None:
    text = (Path(__file__).parents[3] / "nginx/nginx.conf").read_text()
    (told,) = re.findall(r"^\s*ssl_ciphers (.*);$", text, re.MULTILINE)
    assert told.split(":") == list(CIPHERS)
    assert len(CIPHERS) == 6


META, PROMETHEUS = "monitoring/prometheus/rules/meta.yml", "monitoring/prometheus/prometheus.yml"
ALSO_BROKEN: list[tuple[str, tuple[str, str, str], str]] = [
    ("D13", (META, "process_start_time_seconds", "x"), "does not read process_start_time_seconds"),
    ("D13", (META, "redis_start_time_seconds", "x"), "does not read redis_start_time_seconds, which tells of redis-1"),
    ("D13", (META, "RestartLoop", "Other"), "no alert tells of a restart loop"),
    ("D13", (PROMETHEUS, "grafana:3000", "grafana2:3000"), "Prometheus does not scrape grafana"),
    (
        "N2",
        ("nginx/nginx.conf", "; frame-ancestors 'none'", ""),
        "the server sends no x-frame-options or frame-ancestors",
    ),
    ("N4", ("nginx/nginx.conf", "limit_req zone=r;", ""), "location / has no limit_req"),
    ("N4", ("nginx/nginx.conf", "client_max_body_size 1m;", ""), "location = /ws has no client_max_body_size"),
    (
        "R1",
        ("redis/cache-users.acl", "default off", "default on nopass"),
        "redis/cache-users.acl: the default user is on",
    ),
    ("R2", ("redis/users.acl", "(+xadd", "(+keys"), "producer may KEYS"),
    ("R2", ("redis/users.acl", "+xinfo", "+xinfo +config|get"), "exporter may CONFIG"),
    ("R2", ("redis/users.acl", "+xinfo", "+xinfo +@dangerous"), "exporter may @DANGEROUS"),
    ("R2", ("redis/cache-users.acl", "+set", "+set +flushall"), "cache may FLUSHALL"),
    (
        "P8",
        ("database/roles.sql", "ROLE streamgauge_owner SET idle", "ROLE streamgauge_exporter SET idle"),
        "streamgauge_owner has no idle_in_transaction_session_timeout",
    ),
]


@pytest.mark.parametrize(("name", "change", "evidence"), ALSO_BROKEN, ids=lambda one: str(one)[:40])
def test_each_part_of_a_rule_is_looked_at(
    name: str, change: tuple[str, str, str], evidence: str, tmp_path: Path
) -> None:
    found = judged(write(tmp_path, change))
    assert {one.id for one in found.values() if one.status is Status.FAIL} == {name}
    assert evidence in found[name].evidence


def test_a_restart_that_is_bounded_needs_no_alert(tmp_path: Path) -> None:
    root = write(tmp_path, (SAFE, "restart: unless-stopped", 'restart: "on-failure:5"'))
    (root / META).write_text("groups: [{name: meta, rules: [{alert: RestartLoop, expr: other}]}]\n")
    assert judged(root)["D13"].status is Status.PASS


def test_a_secret_that_others_may_read_is_found_and_none_is_no_pass(tmp_path: Path) -> None:
    write(tmp_path)
    for mode in (0o440, 0o404, 0o600):
        (tmp_path / SECRET).chmod(mode)
        found = judged(tmp_path)["D11"]
        assert (found.status, found.evidence) == (Status.FAIL, f"{SECRET} has mode {mode:04o}")
    (tmp_path / SECRET).unlink()
    assert judged(tmp_path)["D11"].status is Status.SKIP


def test_a_line_for_connections_without_tls_is_a_fault_unless_it_rejects(tmp_path: Path) -> None:
    shipped = GOOD["database/pg_hba.conf"]
    file = write(tmp_path) / "database/pg_hba.conf"
    for line, status in (("all all all scram-sha-256", Status.FAIL), ("all all all reject", Status.PASS)):
        file.write_text(f"{shipped}hostnossl {line}\n")
        assert judged(tmp_path)["P2"].status is status


@pytest.mark.parametrize("name", KEYS)
def test_a_key_that_others_may_read_is_found(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / name).chmod(0o440)
    found = judged(tmp_path)["N7"]
    assert (found.status, found.evidence) == (Status.FAIL, f"{name} has mode 0440")


def test_a_certificate_that_ends_soon_is_found_where_it_is_mounted_from(tmp_path: Path) -> None:
    write(tmp_path)
    for folder, days in (("nginx", 90), ("tls/postgres-primary", 3)):
        file = tmp_path / "secrets" / folder / "server.crt"
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=a", "-keyout", "/dev/null"]
        subprocess.run([*make, "-days", str(days), "-out", file], check=True, capture_output=True, timeout=30)
    found = judged(tmp_path)["N7"]
    assert found.status is Status.FAIL
    assert found.evidence == "secrets/tls/postgres-primary/server.crt expires in 3 days"


def test_what_bootstrap_makes_is_looked_at(tmp_path: Path) -> None:
    """Where the script puts keys, and where the rules look for them, is the same place."""
    root = Path(__file__).parents[3]
    shutil.copy(root / SAFE, tmp_path)
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "SECRETS": str(tmp_path / "secrets")}
    subprocess.run([root / "scripts/bootstrap.sh"], env=env, check=True, capture_output=True, timeout=60)
    assert judged(tmp_path)["N7"].status is Status.PASS
    for key in sorted((tmp_path / "secrets").rglob("*.key")):
        key.chmod(0o444)
        assert f"{key.relative_to(tmp_path)} has mode 0444" in judged(tmp_path)["N7"].evidence
        key.chmod(0o400)


def test_a_missing_file_fails_its_rules_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "redis/users.acl").unlink()
    (tmp_path / "nginx/nginx.conf").write_text("http { server {")
    found = judged(tmp_path)
    assert (found["R1"].status, found["R1"].evidence) == (Status.FAIL, "redis/users.acl is missing")
    assert found["N1"].status is not Status.PASS
    assert exit_code(list(found.values())) == 1


def test_the_command_prints_json_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, BROKEN["D8"])
    assert main(["--root", str(tmp_path), "--format", "json"]) == 1
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert told["counts"]["fail"] == 1
    assert {"id", "severity", "status", "evidence", "fix"} == told["rules"][0].keys()


def test_the_script_names_wrong_use(tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "scripts/validate-hardening"
    run = subprocess.run([script, "--root", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (run.returncode, "is no file" in run.stderr) == (2, True)


def test_what_is_shipped_holds_every_rule_that_files_can_tell() -> None:
    found = check_files(Path(__file__).parents[3])
    wrong = {one.id: one.evidence for one in found if one.status in (Status.FAIL, Status.ERROR)}
    # Digests are those of the registry that images are taken from.
    assert wrong.keys() == {"D10"}
    assert wrong["D10"].startswith("tag only: ")
    # Keys and secrets are made where the system is rolled out.
    assert {one.id for one in found if one.status is Status.SKIP} == LIVE_ONLY | {"N7", "D11"}


def test_the_page_lists_every_rule() -> None:
    page = (Path(__file__).parents[3] / "docs/hardening.md").read_text()
    for rule in RULES:
        ways = [("yes" if way else "-") for way in (rule.static, rule.live)]
        assert f"| {rule.id} | {rule.severity} | {rule.holds} | {ways[0]} | {ways[1]} | {rule.fix} |" in page
