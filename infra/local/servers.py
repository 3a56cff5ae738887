"""The three servers together."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from infra.local import artifacts
from infra.local import folder as data_folder
from infra.local.opensearch import OpenSearch
from infra.local.postgres import Postgres
from infra.local.server import Server, wait_ready
from infra.local.valkey import Valkey


class Profile(NamedTuple):
    """How the servers are run."""

    durable: bool
    """Whether PostgreSQL waits for the disk; without, only a crash of the machine loses data."""
    heap: str
    """Memory of OpenSearch, as Java writes it."""
    java_options: tuple[str, ...] = ()


KEEPING = Profile(durable=True, heap="1g")
# With the quick compiler alone, OpenSearch is up after half of the processor time.
THROWAWAY = Profile(durable=False, heap="512m", java_options=("-XX:TieredStopAtLevel=1",))


class LocalServers:
    """PostgreSQL, Valkey and OpenSearch over one data folder, while the context lasts.

    A server whose address stands in the environment (DATABASE_URL, REDIS_URL, OPENSEARCH_URL) is used as it
    is, and none is started in its place. While they run, `servers.json` in the folder has the addresses.
    """

    def __init__(
        self,
        folder: Path,
        profile: Profile = KEEPING,
        *,
        environ: Mapping[str, str] = os.environ,
        keep_open: Sequence[int] = (),
        progress: artifacts.Progress = artifacts.unseen,
        tell: Callable[[Server], None] = lambda _: None,
        working: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Prepare them.

        Args:
            folder: for data, logs and passwords.
            profile: how they are run.
            environ: may hold addresses of servers to use instead.
            keep_open: file descriptors the servers inherit.
            progress: shows downloads.
            tell: called for each server as soon as it is ready.
            working: the context of starting them, such as a display.
        """
        self._folder = folder
        self._profile = profile
        self._given = {
            name: environ[name.upper()]
            for name in ("database_url", "redis_url", "opensearch_url")
            if environ.get(name.upper())
        }
        self._keep_open = keep_open
        self._progress = progress
        self._tell = tell
        self._working = working
        self.running: dict[str, Server] = {}
        """Those started here, by the name of their address, in the order of starting."""

    @property
    def addresses(self) -> dict[str, str]:
        """database_url, redis_url and opensearch_url."""
        return {name: server.url for name, server in self.running.items()} | self._given

    @property
    def postgres(self) -> Server:
        return self.running["database_url"]

    @property
    def valkey(self) -> Server:
        return self.running["redis_url"]

    @property
    def opensearch(self) -> Server:
        return self.running["opensearch_url"]

    def __enter__(self) -> Self:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with data_folder.full_disk_told(self._folder):
                for name, make in self._makers().items():
                    if name not in self._given:
                        self.running[name] = make()
                with self._working():
                    for server in self.running.values():
                        server.spawn()
                    wait_ready(list(self.running.values()), tell=self._tell, movable=True)
                data_folder.write_private(self._notes, json.dumps(self.addresses))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop those started here, the last one first."""
        self._notes.unlink(missing_ok=True)
        for server in reversed(self.running.values()):
            server.stop()

    @property
    def _notes(self) -> Path:
        return self._folder / "servers.json"

    def _makers(self) -> dict[str, Callable[[], Server]]:
        return {
            "database_url": partial(Postgres, self._folder, durable=self._profile.durable, keep_open=self._keep_open),
            "redis_url": partial(Valkey, self._folder, keep_open=self._keep_open),
            "opensearch_url": self._opensearch,
        }

    def _opensearch(self) -> OpenSearch:
        return OpenSearch(
            self._folder,
            artifacts.opensearch_home(progress=self._progress),
            heap=self._profile.heap,
            java_options=self._profile.java_options,
            keep_open=self._keep_open,
        )
