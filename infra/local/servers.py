"""Start and stop the three servers."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

from infra.local import artifacts
from infra.local import folder as data_folder
from infra.local.class_archive import Archiving
from infra.local.opensearch import OpenSearch
from infra.local.postgres import Postgres
from infra.local.server import Server, wait_ready
from infra.local.valkey import Valkey


class Profile(NamedTuple):
    """Settings of the servers."""

    durable: bool
    """Whether PostgreSQL waits for the disk. If not, a crash of the machine loses data."""
    heap: str
    """Heap size of OpenSearch, in Java's notation."""
    java_options: tuple[str, ...] = ()
    opensearch_settings: Mapping[str, Any] = MappingProxyType({})
    """Settings in opensearch.yml beside those of every instance."""
    records_classes: bool = False
    """Whether OpenSearch records its classes for an archive (`class_archive.py`)."""


KEEPING = Profile(durable=True, heap="1g", records_classes=True)
# OpenSearch starts in half the processor time with only the fast compiler. The serial collector saves a tenth of the
# later processor time, because other collectors add code to each write of a reference. It keeps garbage until the old
# generation is full, so the circuit breaker must not count the used memory.
THROWAWAY = Profile(
    durable=False,
    heap="512m",
    java_options=("-XX:TieredStopAtLevel=1", "-XX:-UseG1GC", "-XX:+UseSerialGC"),
    opensearch_settings=MappingProxyType({"indices.breaker.total.use_real_memory": False}),
)


class LocalServers:
    """Context manager that runs PostgreSQL, Valkey and OpenSearch on one data folder.

    A server with an address in the environment (DATABASE_URL, REDIS_URL, OPENSEARCH_URL) is used as it is and not
    started. While the servers run, `servers.json` in the folder holds the addresses, and that of a store for exports.
    """

    def __init__(
        self,
        folder: Path,
        profile: Profile = KEEPING,
        *,
        environ: Mapping[str, str] = os.environ,
        keep_open: Sequence[int] = (),
        progress: artifacts.Progress = artifacts.no_progress,
        on_ready: Callable[[Server], None] = lambda _: None,
        starting: Callable[[], AbstractContextManager[None]] = nullcontext,
        waits_for_opensearch: bool = True,
    ) -> None:
        """Configure the servers.

        Args:
            folder: for data, logs and passwords.
            profile: durability, heap and Java options.
            environ: may hold addresses of existing servers.
            keep_open: file descriptors that the servers inherit.
            progress: shows downloads.
            on_ready: called for each server when it is ready.
            starting: context for the start, such as a display.
            waits_for_opensearch: whether the block begins when OpenSearch is ready too, as it takes longest.
        """
        self._folder = folder
        self._profile = profile
        self._existing = {
            name: environ[name.upper()]
            for name in ("database_url", "redis_url", "opensearch_url")
            if environ.get(name.upper())
        }
        self._keep_open = keep_open
        self._progress = progress
        self._on_ready = on_ready
        self._starting = starting
        self._waits_for_opensearch = waits_for_opensearch
        self.running: dict[str, Server] = {}
        """Started servers by the name of their address, in start order."""

    @property
    def addresses(self) -> dict[str, str]:
        """The addresses by name: database_url, redis_url and opensearch_url."""
        return {name: server.url for name, server in self.running.items()} | self._existing

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
            with data_folder.disk_full_errors(self._folder):
                for name, make in self._makers().items():
                    if name not in self._existing:
                        # At once: the next server may have to be downloaded.
                        self.running[name] = make()
                        self.running[name].spawn()
                with self._starting():
                    waited = dict(self.running)
                    if not self._waits_for_opensearch:
                        waited.pop("opensearch_url", None)
                    wait_ready(list(waited.values()), on_ready=self._on_ready, movable=True)
                addresses = self.addresses | {"exports_url": (self._folder / "exports").as_uri()}
                data_folder.write_private(self._addresses_file, json.dumps(addresses))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_for_opensearch(self) -> None:
        """Wait until OpenSearch is ready, if it was started here.

        Raises:
            LocalError: OpenSearch ended, or is not ready in time.
        """
        wait_ready(
            [server for name, server in self.running.items() if name == "opensearch_url"], on_ready=self._on_ready
        )

    def archiving(self) -> list[Archiving]:
        """Return the process that makes OpenSearch's archive of classes, if it is missing."""
        server = self.running.get("opensearch_url")
        return server.archiving() if isinstance(server, OpenSearch) else []

    def stop(self) -> None:
        """Stop the started servers in reverse order."""
        self._addresses_file.unlink(missing_ok=True)
        for server in reversed(self.running.values()):
            server.stop()

    @property
    def _addresses_file(self) -> Path:
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
            settings_of_profile=self._profile.opensearch_settings,
            records_classes=self._profile.records_classes,
            keep_open=self._keep_open,
        )
