"""A TCP load balancer: each connection goes to the next server that accepts it."""

import contextlib
import itertools
import socket
import threading
from typing import Self


class Balancer:
    """Forwards connections of one port to the ports of several servers, in turn."""

    def __init__(self, *ports: int) -> None:
        self._ports = list(ports)
        self._turn = itertools.count()
        self._open: dict[int, set[socket.socket]] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def add(self, port: int) -> None:
        self._ports = [*self._ports, port]

    def remove(self, port: int) -> None:
        """Send no further connection to a server. Its open connections stay."""
        self._ports = [other for other in self._ports if other != port]

    def connections(self, port: int) -> int:
        """Return the number of open connections to a server."""
        return len(self._open.get(port, ()))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        first = next(self._turn)
        for number in range(len(self._ports)):
            ports = self._ports
            port = ports[(first + number) % len(ports)]
            with contextlib.suppress(OSError):
                server = socket.create_connection(("127.0.0.1", port))
                break
        else:
            client.close()
            return
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections = self._open.setdefault(port, set())
        connections.add(server)
        back = threading.Thread(target=_carry, args=[server, client], daemon=True)
        back.start()
        _carry(client, server)
        back.join()
        connections.discard(server)
        client.close()
        server.close()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
