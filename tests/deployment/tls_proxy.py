"""A TLS endpoint in front of a real server, because the bundled servers are built without TLS."""

import asyncio
import ssl
import threading
from contextlib import closing, suppress
from typing import Self
from urllib.parse import urlsplit

import trustme

POSTGRES_TLS_REQUEST = bytes.fromhex("00000008 04d2162f")
LOOPBACK, HOST = "127.0.0.1", "localhost"


class TlsProxy:
    """Accepts only TLS on a port of its own, and forwards the decrypted bytes to a server."""

    def __init__(self, address: str, certificate: trustme.LeafCert) -> None:
        parts = urlsplit(address)
        self._target = (parts.hostname, parts.port)
        self._is_postgres = parts.scheme.startswith("postgres")
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self._tls)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._accept, LOOPBACK, 0), self._loop)
        self._server = listening.result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError), closing(writer):
            if self._is_postgres:
                if await reader.readexactly(len(POSTGRES_TLS_REQUEST)) != POSTGRES_TLS_REQUEST:
                    return
                writer.write(b"S")
            await writer.start_tls(self._tls)
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            with closing(server_writer):
                await asyncio.gather(_carry(reader, server_writer), _carry(server_reader, writer))


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while content := await source.read(1 << 16):
        target.write(content)
        await target.drain()
    target.close()
