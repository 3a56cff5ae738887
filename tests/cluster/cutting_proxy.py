"""TCP proxies before the nodes of a cluster, to cut a node off: packets stay unanswered, as with a broken network."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

CLIENTS = -1
"""The source of connections that are not from a node."""

IsCut = Callable[[int, int], bool]


Ports = tuple[int, int]
"""The ports of a connection: of its source, and of its target. Connections to two targets may have one source port."""


class Link:
    """A connection through a proxy to a node."""

    def __init__(self, ports: Ports, target: int) -> None:
        self.ports, self.target = ports, target
        self.is_open = asyncio.Event()


class CuttingProxies:
    """Proxies in a thread. A connection between two nodes passes the proxy of its target."""

    def __init__(self) -> None:
        self.pids: dict[int, int] = {}
        """Process group of each node: the nodes are the sources of their connections."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._links: set[Link] = set()
        self._servers: list[asyncio.Server] = []
        self._is_cut: IsCut | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def add(self, node: int, target: int) -> int:
        """Forward a port to a port of a node; return the forwarded port."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            link = Link((writer.get_extra_info("peername")[1], writer.get_extra_info("sockname")[1]), node)
            self._links.add(link)
            with suppress(OSError):
                await self._apply([link])
                await _carry(link, target, reader, writer)
            self._links.remove(link)
            writer.close()

        async def listen() -> int:
            server = await asyncio.start_server(accept, "127.0.0.1", 0)
            self._servers.append(server)
            return int(server.sockets[0].getsockname()[1])

        return int(self._run(listen()))

    def cut(self, is_cut: IsCut | None) -> None:
        """Cut the connections, present and later, for which `is_cut(source, target)` holds; join all others."""
        self._is_cut = is_cut
        self._run(self._apply(list(self._links)))

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _apply(self, links: list[Link]) -> None:
        owners = await asyncio.to_thread(owners_of_connections, self.pids) if self._is_cut else {}
        for link in links:
            if self._is_cut and self._is_cut(owners.get(link.ports, CLIENTS), link.target):
                link.is_open.clear()
            else:
                link.is_open.set()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


async def _carry(link: Link, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await link.is_open.wait()
    target_reader, target_writer = await asyncio.open_connection("127.0.0.1", target)
    await asyncio.gather(_pump(link, reader, target_writer), _pump(link, target_reader, writer))


async def _pump(link: Link, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while content := await source.read(1 << 16):
            await link.is_open.wait()
            target.write(content)
            await target.drain()
    target.close()


def owners_of_connections(pids: Mapping[int, int]) -> dict[Ports, int]:
    """Return the node of each connection of a node.

    Args:
        pids: process group of each node.
    """
    ports = dict[str, Ports]()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            source, target = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
            ports[f"socket:[{fields[9]}]"] = source, target
    nodes = {group: number for number, group in pids.items()}
    owners: dict[Ports, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (number := nodes.get(os.getpgid(int(folder.name)))) is not None:
                owners |= {ports[socket]: number for socket in _descriptors(folder) if socket in ports}
    return owners


def _descriptors(folder: Path) -> list[str]:
    targets = []
    for descriptor in (folder / "fd").iterdir():
        with suppress(OSError):
            targets.append(str(descriptor.readlink()))
    return targets
