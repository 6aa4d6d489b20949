"""A small deployment that holds every hardening rule that files can tell, for tests that break one of them."""

from pathlib import Path

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
secrets: {x: {file: ./secrets/x}}
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
    add_header Referrer-Policy no-referrer always;
    add_header Content-Security-Policy "default-src 'none'; frame-ancestors 'none'" always;
    limit_req zone=r;
    location / { proxy_pass http://127.0.0.1:1; }
    location = /ws { limit_conn c 10; proxy_pass http://127.0.0.1:1; proxy_set_header Upgrade $http_upgrade; }
    location ~ ^/(metrics|health/detailed|api/monitoring|stub_status) { return 404; }
  }
}
"""

SECRET = "secrets/x"
KEYS = ("secrets/nginx/server.key", "secrets/tls/postgres-primary/postgres.key", "secrets/tls/ca.key")

GOOD = {
    "docker-compose.scale.yml": COMPOSE,
    "monitoring/prometheus/rules/meta.yml": """
groups:
  - name: meta
    rules:
      - alert: RestartLoop
        expr: >
          changes(process_start_time_seconds[15m]) > 2 or changes(redis_start_time_seconds[15m]) > 2
          or changes(postgres_node_start_time_seconds[15m]) > 2 or changes(probe_success[15m]) > 4
""",
    "monitoring/prometheus/prometheus.yml": """
scrape_configs:
  - { job_name: prometheus, static_configs: [{ targets: ["localhost:9090"] }] }
  - { job_name: grafana, static_configs: [{ targets: ["grafana:3000"] }] }
""",
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
CREATE ROLE streamgauge_exporter LOGIN; -- not streamgauge_other
ALTER ROLE streamgauge_exporter SET statement_timeout = '5s';
ALTER ROLE streamgauge_exporter SET idle_in_transaction_session_timeout = '5s';
CREATE ROLE streamgauge_owner LOGIN;
ALTER ROLE streamgauge_owner SET statement_timeout = '600s';
ALTER ROLE streamgauge_owner SET idle_in_transaction_session_timeout = '60s';
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
user admin on #0123 ~* &* +@all
user producer on #0123 -@all +time (+xadd ~sg:*) (+get ~sg:full)
user exporter on #0123 %R~* -@all +info +xinfo
user sentinel on #0123 allchannels -@all +config|rewrite
""",
    "redis/cache-users.acl": "user default off\nuser cache on #0123 ~app:* -@all +get +set\n",
    "nginx/nginx.conf": NGINX,
    **dict.fromkeys(KEYS, "-----BEGIN PRIVATE KEY-----\n"),
    SECRET: "hunter2\n",
}


def write(root: Path, change: tuple[str, str, str] | None = None) -> Path:
    """Write the deployment, with one text replaced."""
    for name, text in GOOD.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if change is not None and change[0] == name:
            assert change[1] in text
            text = text.replace(change[1], change[2], 1)
        path.write_text(text)
    for name in (*KEYS, SECRET):
        (root / name).chmod(0o400)
    return root
