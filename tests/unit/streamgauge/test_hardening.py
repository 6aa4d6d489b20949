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

COMPOSE = """
x-safe: &safe
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  read_only: true
  restart: unless-stopped
  healthcheck: {test: [CMD, check]}
  deploy: {resources: {limits: {memory: 1g, cpus: "1", pids: 100}}}
services:
  api:
    <<: *safe
    image: ours:1.0@sha256:0123
    user: "10001"
    networks: [front, data]
    environment: {POSTGRES_PASSWORD_FILE: /run/secrets/x, REDIS_URL: "redis://redis-1"}
  nginx:
    <<: *safe
    image: nginx:1.28@sha256:0123
    user: "101"
    ports: ["80:8080", "443:8443"]
    networks: [front]
    volumes: ["./secrets/nginx:/etc/nginx/ssl:ro"]
  postgres-primary:
    <<: *safe
    image: postgres:18.1@sha256:0123
    cap_add: [CHOWN, SETUID, SETGID]
    networks: [data]
    volumes: ["./secrets/tls/postgres-primary:/etc/tls:ro", "./secrets/tls/ca.crt:/etc/ca.crt:ro"]
    environment: {POSTGRES_INITDB_ARGS: --data-checksums}
  redis-1: {<<: *safe, image: "redis:8.2@sha256:0123", user: "999", networks: [data]}
  sentinel-1: {<<: *safe, image: "redis:8.2@sha256:0123", user: "999", networks: [data]}
  sentinel-2: {<<: *safe, image: "redis:8.2@sha256:0123", user: "999", networks: [data]}
  sentinel-3: {<<: *safe, image: "redis:8.2@sha256:0123", user: "999", networks: [data]}
  prometheus: {<<: *safe, image: "prom:3.1@sha256:0123", user: "65534", networks: [front], command: [--config.file=x]}
  grafana:
    <<: *safe
    image: grafana:12.0@sha256:0123
    user: "472"
    networks: [front]
    environment:
      GF_SECURITY_ADMIN_PASSWORD__FILE: /run/secrets/grafana
      GF_AUTH_ANONYMOUS_ENABLED: "false"
      GF_USERS_ALLOW_SIGN_UP: "false"
      GF_SECURITY_COOKIE_SECURE: "true"
networks: {front: {}, data: {internal: true}}
secrets: {x: {file: secrets/x}}
"""

NGINX = """
events {}
http {
  server_tokens off;
  client_header_timeout 10s; client_body_timeout 10s; send_timeout 10s; client_max_body_size 1m;
  limit_req_zone $binary_remote_addr zone=r:1m rate=10r/s; limit_conn_zone $binary_remote_addr zone=c:1m;
  upstream api { server 127.0.0.1:1 max_fails=3; }
  server { listen 8443 ssl default_server; ssl_reject_handshake on; }
  server { listen 8080; return 301 https://$host$request_uri; }
  server {
    listen 8443 ssl; server_name a;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256;
    add_header Strict-Transport-Security "max-age=63072000" always; add_header X-Content-Type-Options nosniff always;
    add_header Referrer-Policy no-referrer always; add_header Content-Security-Policy "default-src 'none'" always;
    limit_req zone=r; limit_conn c 10;
    location / { proxy_pass http://127.0.0.1:1; }
    location ~ ^/(metrics|health/detailed|api/monitoring|stub_status) { return 404; }
  }
}
"""

KEYS = ("secrets/nginx/server.key", "secrets/tls/postgres-primary/postgres.key", "secrets/tls/ca.key")

GOOD = {
    "docker-compose.scale.yml": COMPOSE,
    "monitoring/prometheus/rules/meta.yml": "- alert: RestartLoop\n",
    "database/postgresql.conf": """
password_encryption = scram-sha-256
ssl = on   # TLS
ssl_min_protocol_version = 'TLSv1.2'
fsync = on
full_page_writes = on
max_slot_wal_keep_size = 8GB
log_connections = on
log_disconnections = on
log_lock_waits = on
log_min_duration_statement = 1s
log_line_prefix = '%m [%p] user=%u db=%d app=%a '
""",
    "database/pg_hba.conf": """
local   all          all                    peer
hostssl replication  replicator  samenet    scram-sha-256
hostssl streamgauge  all         samenet    scram-sha-256
""",
    "database/roles.sql": """
CREATE ROLE streamgauge_exporter LOGIN;
ALTER ROLE streamgauge_exporter SET statement_timeout = '5s';
ALTER ROLE streamgauge_exporter SET idle_in_transaction_session_timeout = '5s';
""",
    "redis/redis.conf": "protected-mode yes\nappendonly yes\nmaxmemory 600mb\nmaxmemory-policy noeviction\naclfile x\n",
    "redis/cache.conf": "protected-mode yes\nmaxmemory 100mb\naclfile x\n",
    "redis/sentinel.conf": """
protected-mode yes
sentinel monitor streams 10.0.0.1 6379 2
sentinel deny-scripts-reconfig yes
""",
    "redis/users.acl": """
user default off
user producer on #0123 ~sg:* -@all +xadd +get +time
user exporter on #0123 %R~* -@all +info +xinfo +config|get
""",
    "nginx/nginx.conf": NGINX,
    **dict.fromkeys(KEYS, "-----BEGIN PRIVATE KEY-----\n"),
}

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
    "N4": ("nginx/nginx.conf", "limit_conn c 10;", ""),
    "N5": ("nginx/nginx.conf", "client_body_timeout 10s", "client_body_timeout 2m"),
    "N6": ("nginx/nginx.conf", "metrics|", ""),
    "A1": (SAFE, 'GF_AUTH_ANONYMOUS_ENABLED: "false"', 'GF_AUTH_ANONYMOUS_ENABLED: "true"'),
    "A2": (SAFE, "--config.file=x", "--web.enable-admin-api"),
}
ALSO = {"R5": {"D12"}, "D12": {"R5"}}
"""Two rules look at the same fault from two sides."""
LIVE_ONLY = {"P4", "P5", "P6", "P10", "P12", "A3", "A4"}


def write(root: Path, change: tuple[str, str, str] | None = None) -> Path:
    """Write the deployment, with one text replaced."""
    for name, text in GOOD.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if change is not None and change[0] == name:
            assert change[1] in text
            text = text.replace(change[1], change[2], 1)
        path.write_text(text)
    for name in KEYS:
        (root / name).chmod(0o400)
    return root


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
    # A key is made where the system is rolled out.
    assert {one.id for one in found if one.status is Status.SKIP} == LIVE_ONLY | {"N7"}


def test_the_page_lists_every_rule() -> None:
    page = (Path(__file__).parents[3] / "docs/hardening.md").read_text()
    for rule in RULES:
        ways = [("yes" if way else "-") for way in (rule.static, rule.live)]
        assert f"| {rule.id} | {rule.severity} | {rule.holds} | {ways[0]} | {ways[1]} | {rule.fix} |" in page
