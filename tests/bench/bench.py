"""What the parts of a run share."""

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
    """Servers, and what is made on them when a part first needs it."""

    def __init__(self, stack: ExitStack, servers: LocalServers, report: Report, folder: Path, size: int) -> None:
        self._stack, self.servers, self.report, self.folder, self.size = stack, servers, report, folder, size

    @cached_property
    def shop(self) -> Shop:
        """Of the size that was asked for."""
        return self._stack.enter_context(shop.opened(self.servers, self.size, self.folder / "shop"))

    @cached_property
    def clients(self) -> Clients:
        return self._stack.enter_context(open_clients())

    @contextmanager
    def shop_of(self, size: int) -> Iterator[Shop]:
        """One of this size, for a while."""
        if size == self.size:
            yield self.shop
        else:
            with shop.opened(self.servers, size, self.folder / f"shop-{size}") as other:
                yield other
