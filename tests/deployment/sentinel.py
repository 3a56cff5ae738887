"""Valkey with a replica and two Sentinels."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from infra.local.ports import LOOPBACK
from infra.local.server import Server, wait_ready
from infra.local.valkey import PROGRAMS
from tests.waiting import wait_until

PASSWORD = "secret"
SENTINEL_PASSWORD = "watchers"
SERVICE = "the-queue"


class ValkeyServer(Server):
    """Valkey with chosen settings: a server, a replica, or a Sentinel."""

    def __init__(self, name: str, folder: Path, settings: dict[str, str], *, is_sentinel: bool = False) -> None:
        super().__init__(name, folder)
        self._settings, self._is_sentinel = settings, is_sentinel
        self._config = folder / f"{name}.conf"

    @property
    def url(self) -> str:
        password = SENTINEL_PASSWORD if self._is_sentinel else PASSWORD
        return f"redis://:{password}@{LOOPBACK}:{self.port}/0"

    def prepare(self) -> None:
        own = {"bind": LOOPBACK, "port": str(self.port), "save": '""', "dir": str(self._config.parent)}
        lines = [f"{name} {value}" for name, value in (own | self._settings).items()]
        self._config.write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        (program,) = PROGRAMS.glob("*/valkey-server")
        return [str(program), str(self._config), *(["--sentinel"] if self._is_sentinel else [])]

    def ready(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1, retry=None) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def server(name: str, folder: Path) -> ValkeyServer:
    return ValkeyServer(name, folder, {"requirepass": PASSWORD, "masterauth": PASSWORD})


def replica(name: str, folder: Path, primary: ValkeyServer) -> ValkeyServer:
    settings = {"requirepass": PASSWORD, "masterauth": PASSWORD, "replicaof": f"{LOOPBACK} {primary.port}"}
    return ValkeyServer(name, folder, settings)


def sentinel(name: str, folder: Path, primary: ValkeyServer) -> ValkeyServer:
    settings = {
        "requirepass": SENTINEL_PASSWORD,
        "sentinel sentinel-pass": SENTINEL_PASSWORD,
        f"sentinel monitor {SERVICE}": f"{LOOPBACK} {primary.port} 1",
        f"sentinel auth-pass {SERVICE}": PASSWORD,
        f"sentinel down-after-milliseconds {SERVICE}": "500",
        f"sentinel failover-timeout {SERVICE}": "3000",
    }
    return ValkeyServer(name, folder, settings, is_sentinel=True)


class Sentinels:
    """A server, its replica, and two Sentinels."""

    def __init__(self, folder: Path) -> None:
        self.primary = server("primary", folder)
        self.replica = replica("replica", folder, self.primary)
        self.watchers = [sentinel(f"sentinel{number}", folder, self.primary) for number in range(2)]

    @property
    def all(self) -> list[ValkeyServer]:
        return [self.primary, self.replica, *self.watchers]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{watcher.port}" for watcher in self.watchers)
        return f"redis+sentinel://:{PASSWORD}@{hosts}/{SERVICE}/3?sentinel_password={SENTINEL_PASSWORD}"

    def is_ready(self) -> bool:
        with redis.Redis.from_url(self.watchers[0].url) as client:
            state = client.sentinel_master(SERVICE)
        return int(state["num-slaves"]) == 1


@contextmanager
def running_sentinels(folder: Path) -> Iterator[Sentinels]:
    """Start all, and wait until the Sentinels know the replica."""
    started = Sentinels(folder)
    with ExitStack() as stack:
        for each in started.all:
            each.spawn()
            stack.callback(each.stop)
        wait_ready(started.all)
        wait_until(started.is_ready, what="the Sentinel")
        yield started
