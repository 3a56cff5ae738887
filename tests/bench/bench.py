"""Servers, report and filled services shared by the parts of a run."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from infra.local.servers import LocalServers
from tests.bench import shop
from tests.bench.clients import Clients, open_clients
from tests.bench.report import Report
from tests.bench.shop import Shop


class Bench:
    """The servers of a run, with services and clients created on first use."""

    def __init__(self, stack: ExitStack, servers: LocalServers, report: Report, folder: Path, size: int) -> None:
        self._stack, self.servers, self.report, self.folder, self.size = stack, servers, report, folder, size

    @cached_property
    def shop(self) -> Shop:
        """The filled service of the run's size."""
        return self._stack.enter_context(shop.opened(self.servers, self.size, self.folder / "shop"))

    @cached_property
    def clients(self) -> Clients:
        return self._stack.enter_context(open_clients())

    @contextmanager
    def shop_of(self, size: int) -> Iterator[Shop]:
        """A filled service of another size, removed afterwards."""
        if size == self.size:
            yield self.shop
        else:
            with shop.opened(self.servers, size, self.folder / f"shop-{size}") as other:
                yield other
