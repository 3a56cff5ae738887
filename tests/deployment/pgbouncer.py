"""PgBouncer in front of the real PostgreSQL."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from infra.local.ports import LOOPBACK
from infra.local.server import Server

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(
    PROGRAM is None, reason="PgBouncer is not installed (Debian: apt install pgbouncer)"
)


class PgBouncer(Server):
    """A pooler. Its clients need no password."""

    refuses_root = True

    def __init__(self, folder: Path, server_url: str, **settings: str | int) -> None:
        super().__init__("PgBouncer", folder)
        self._server, self._settings = urlsplit(server_url), settings
        self._config = folder / "pgbouncer.ini"

    @property
    def url(self) -> str:
        return f"postgresql://{self._server.username}@{LOOPBACK}:{self.port}{self._server.path}"

    def prepare(self) -> None:
        server = self._server
        login = f"user={server.username} password={server.password}"
        settings = {
            "listen_addr": LOOPBACK,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "default_pool_size": 4,
            **self._settings,
        }
        lines = [
            "[databases]",
            f"* = host={server.hostname} port={server.port} {login}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        self._config.write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        assert PROGRAM
        return [PROGRAM, str(self._config)]

    def ready(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
