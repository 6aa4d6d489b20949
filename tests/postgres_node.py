"""PostgreSQL as it is deployed: our configuration, our scripts, started as the image's entrypoint starts it.

In: a folder, the programs' folder, an address of the loopback network. Out: running nodes of one cluster.
Promise: the shipped files run as they are but for `SUBSTITUTED`; `close` leaves no process and no file.
"""

import getpass
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from streamgauge.processes import free_port

DATABASE: Final = Path(__file__).parent.parent / "database"
DEADLINE_S: Final = 60.0
# PostgreSQL refuses to run as root. Whoever it runs as is its superuser, by peer.
RUN_AS: Final = "postgres" if os.geteuid() == 0 else None
USER: Final = RUN_AS or getpass.getuser()
ROLES: Final = ("owner", "aggregator", "exporter", "optimizer", "metrics", "api")
INITDB: Final = ("--auth-host=scram-sha-256", "--auth-local=peer", "--data-checksums", "--encoding=UTF8", "--locale=C")


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.05)


class Cluster:
    """What nodes share: programs, port, secrets, certificates, configuration files."""

    def __init__(self, programs: Path, *, tls: bool) -> None:
        # Short, and open to be passed through: a unix socket's path has 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="sgd-", dir="/tmp"))
        self.home.chmod(0o711)
        self.programs = programs
        self.tls = tls
        self.port = free_port()
        self.secrets = self.home / "secrets"
        self.certificates = self.home / "tls"
        self.passwords: dict[str, str] = {}
        self.nodes: dict[str, Node] = {}
        for folder in (self.secrets, self.certificates):
            self.make(folder)
        self.renew_passwords()

    def renew_passwords(self) -> None:
        """Give every role another password, in the files that nodes read."""
        self.passwords = {role: secrets.token_urlsafe(16) + ":\\'" for role in (*ROLES, "replication")}
        for role, password in self.passwords.items():
            file = self.secrets / f"postgres_{role}_password"
            file.unlink(missing_ok=True)
            self.write(file, password + "\n")

    def node(self, host: str) -> "Node":
        """Return a node that is not started yet."""
        self.nodes[host] = Node(self, host)
        return self.nodes[host]

    def address(self, role: str, *hosts: str, database: str = "streamgauge") -> str:
        """Return a service's address; several hosts as it would have them in production."""
        password = quote(self.passwords[role], safe="")
        where = ",".join(f"{host}:{self.port}" for host in hosts)
        return f"postgresql://streamgauge_{role}:{password}@{where}/{database}"

    def client(self) -> dict[str, str]:
        """Return what a client needs in its environment."""
        mode = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(self.home / "ca.crt")}
        return mode if self.tls else {"PGSSLMODE": "disable"}

    def make_certificates(self, *hosts: str) -> None:
        """Make an authority and one certificate for all hosts."""
        names = ",".join(f"IP:{host}" for host in hosts)
        folder = self.certificates
        make_key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        authority = ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"), "-addext"]
        for name, extra in (("ca", []), ("postgres", [*authority, f"subjectAltName={names}"])):
            files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt"), "-days", "2"]
            done = subprocess.run(
                [*make_key, *files, "-subj", f"/CN={name}", *extra], capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
        for file in folder.iterdir():
            file.chmod(0o400)
            self.own(file)
        shutil.copy(folder / "ca.crt", self.home / "ca.crt")
        (self.home / "ca.crt").chmod(0o444)

    def make(self, folder: Path) -> None:
        """Make a folder of the server's user."""
        folder.mkdir(mode=0o700)
        self.own(folder)

    def write(self, file: Path, text: str) -> None:
        """Write a file that only the server's user can read."""
        file.write_text(text)
        file.chmod(0o400)
        self.own(file)

    def own(self, path: Path) -> None:
        """Give a path to the server's user."""
        if os.geteuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(path, user.pw_uid, user.pw_gid)

    def close(self) -> None:
        """End every node and remove all files."""
        for node in self.nodes.values():
            node.stop(signal.SIGQUIT)
        shutil.rmtree(self.home)


class Node:
    """One server, at an address of its own and with a data directory of its own."""

    def __init__(self, cluster: Cluster, host: str) -> None:
        self.cluster = cluster
        self.host = host
        self.home = cluster.home / host
        self.run = self.home / "run"
        self.data = self.home / "18" / "docker"
        self.log = self.home / "log"
        self.process: subprocess.Popen[bytes] | None = None
        for folder in (self.home, self.run, self.home / "18"):
            cluster.make(folder)
        self.home.chmod(0o711)
        self.run.chmod(0o711)
        cluster.write(self.home / "postgresql.conf", self._substituted("postgresql.conf"))
        cluster.write(self.home / "pg_hba.conf", self._substituted("pg_hba.conf"))

    def _substituted(self, name: str) -> str:
        """Return a shipped file with all that a test must change: paths, port, address, and TLS where there is none."""
        text = (DATABASE / name).read_text()
        if name == "pg_hba.conf":
            changed = {"           postgres   ": f"           {USER}   "}
            without_tls = {"\nhostssl ": "\nhost ", "\nhostnossl ": "\n# hostnossl "}
        else:
            changed = {
                "'/etc/streamgauge/tls/": f"'{self.cluster.certificates}/",
                "'/var/run/postgresql'": f"'{self.run}'",
                "port = 5432": f"port = {self.cluster.port}",
                "listen_addresses = '*'": f"listen_addresses = '{self.host}'",
            }
            without_tls = {"ssl = on": "ssl = off"}
        for shipped, here in (changed | ({} if self.cluster.tls else without_tls)).items():
            assert shipped in text, f"{name} has no {shipped!r} any more"
            text = text.replace(shipped, here)
        return text

    def environment(self, primary: str | None = None) -> dict[str, str]:
        """Return the environment of the node's container; paths and port are the test's."""
        found = {
            "PATH": f"{self.cluster.programs}:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PGDATA": str(self.data),
            "PGHOST": str(self.run),
            "PGPORT": str(self.cluster.port),
            "POSTGRES_USER": USER,
            "POSTGRES_DB": "streamgauge",
            "POSTGRES_NODE": self.host,
            "POSTGRES_PRIMARY_HOST": primary or self.host,
            "POSTGRES_PRIMARY_PORT": str(self.cluster.port),
            "POSTGRES_PASSFILE": str(self.run / "replication.pgpass"),
            "POSTGRES_REPLICATION_PASSWORD_FILE": str(self.cluster.secrets / "postgres_replication_password"),
            "POSTGRES_WAIT_S": "30",
            "SECRETS_DIR": str(self.cluster.secrets),
            "STREAMGAUGE_POSTGRES_DIR": str(DATABASE),
        } | self.cluster.client()
        if self.cluster.tls:
            found["PGSSLROOTCERT"] = str(self.cluster.home / "ca.crt")
        return found

    def command(self, *more: str) -> list[str]:
        """Return how the compose file starts the server."""
        files = (f"config_file={self.home}/postgresql.conf", f"hba_file={self.home}/pg_hba.conf")
        return ["postgres", *(part for file in files for part in ("-c", file)), *more]

    def open_primary(self) -> None:
        """Do what the image's entrypoint does with an empty volume, then start."""
        self.ask(["initdb", "--username", USER, *INITDB])
        self.start(self.command("-c", "listen_addresses="))
        self.ask(["createdb", "--username", USER, "--maintenance-db", "postgres", "streamgauge"])
        self.ask([str(DATABASE / "init-primary.sh")])
        self.stop()
        self.start(self.command())

    def open_replica(self, primary: str) -> None:
        """Start a replica through its entrypoint, and wait until it can be read."""
        self.start(self.entrypoint(), primary=primary)

    def entrypoint(self) -> list[str]:
        """Return how the compose file starts a node that is no primary yet, or is none any more."""
        return [str(DATABASE / "init-replication.sh"), "replica", *self.command()]

    def start(self, command: list[str], *, primary: str | None = None) -> None:
        """Run a command as the node's process and wait until the server accepts connections."""
        self.process = self.begin(command, primary=primary)
        until(self._is_ready, f"{self.host} is up\n{self.log.read_text()[-3000:]}")

    def begin(self, command: list[str], *, primary: str | None = None) -> subprocess.Popen[bytes]:
        """Run a command as the server's user, its output in the log."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(primary),
                cwd="/",
                start_new_session=True,
                user=RUN_AS,
                group=RUN_AS,
                extra_groups=None if RUN_AS is None else [],
            )

    def ask(self, command: list[str], *, primary: str | None = None, env: Mapping[str, str] | None = None) -> str:
        """Run a command as the server's user and return what it prints; it must succeed."""
        done = self.try_to(command, primary=primary, env=env)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def try_to(
        self, command: list[str], *, primary: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the server's user."""
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            cwd="/",
            env={**self.environment(primary), **(env or {})},
            user=RUN_AS,
            group=RUN_AS,
            extra_groups=None if RUN_AS is None else [],
        )

    def sql(self, text: str, database: str = "streamgauge") -> str:
        """Ask as the superuser, over the socket."""
        return self.ask(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", database, "-c", text])

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server as the image's stop signal does."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(how)
            self.process.wait(DEADLINE_S)
            self.process = None

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.host} ended\n{self.log.read_text()[-3000:]}"
        # As the health check asks, but over the socket too: a new primary listens on nothing else at first.
        return self.try_to(["pg_isready", "-q"]).returncode == 0 and bool(re.search(r"ready to accept", self._said()))

    def _said(self) -> str:
        return self.log.read_text()


@contextmanager
def primary(programs: Path, host: str) -> Generator[Node, None, None]:
    """A primary with TLS, alone in its cluster."""
    cluster = Cluster(programs, tls=True)
    try:
        cluster.make_certificates(host)
        made = cluster.node(host)
        made.open_primary()
        yield made
    finally:
        cluster.close()
