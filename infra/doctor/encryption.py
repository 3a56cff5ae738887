"""Checks of TLS to the servers: connections without TLS, and expiring certificates."""

import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from infra.doctor.checks import SECONDS, Check, Finding, Servers
from infra.index.client import tls as opensearch_tls
from infra.redis_client import server_of
from infra.settings import Settings

DAYS = 21
"""An earlier end is a fault, because certificates are usually renewed a month before."""
DAY_SECONDS = 86_400
SSL_REQUEST = struct.pack("!ii", 8, 80_877_103)
"""PostgreSQL's message before TLS."""
VERIFIED = "verify-full"


class Address(NamedTuple):
    """An address of a server, as the service connects to it."""

    variable: str
    host: str
    port: int
    context: ssl.SSLContext | None
    """None without TLS, or without a check of the name."""
    is_postgresql: bool = False

    @property
    def is_local(self) -> bool:
        """Whether the connection stays on this machine: the loopback interface, or a Unix socket."""
        with suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host in {"localhost", ""} or self.host.startswith("/")


def encrypted(servers: Servers) -> Iterator[Finding]:
    """Find connections to other machines without TLS, or without a check of the server's name."""
    yield from of_addresses(addresses(servers.settings))


def of_addresses(connections: Iterator[Address]) -> Iterator[Finding]:
    for address in connections:
        if address.context is None and not address.is_local:
            yield Finding(
                f"{address.variable}: the connection to {address.host} has no TLS that verifies the name, so passwords "
                "and personal data can be read on the way",
                "Use https://, rediss:// or sslmode=verify-full: TLS to the servers, in docs/deploying.md",
                is_warning=True,
            )


def certificates(servers: Servers) -> Iterator[Finding]:
    """Find expiring and unverifiable certificates of the servers."""
    for address in addresses(servers.settings):
        if address.context is None:
            continue
        try:
            ends = _end_of_certificate(address)
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", None) or error.reason or type(error).__name__
            yield Finding(
                f"{address.variable}: the certificate of {address.host} cannot be verified ({reason})",
                "Renew the certificate, or correct the name in the address or the file of the authority",
            )
        except OSError:
            continue  # another check reports servers that do not answer
        else:
            yield from of_certificate(address, ends - time.time())


def of_certificate(address: Address, seconds: float) -> Iterator[Finding]:
    """Yield the finding of a certificate with so many seconds left."""
    days = int(seconds // DAY_SECONDS)
    if days < DAYS:
        yield Finding(
            f"{address.variable}: the certificate of {address.host} ends in {days} days",
            "Renew the certificate, then have the server read it",
        )


def addresses(settings: Settings) -> Iterator[Address]:
    """Yield each address of each server."""
    yield from _of_postgresql("DATABASE_URL", settings.database_url)
    if settings.database_session_url:
        yield from _of_postgresql("DATABASE_SESSION_URL", settings.database_session_url)
    server = server_of(settings)
    hosts = server.sentinels or [(urlsplit(server.url).hostname or "", urlsplit(server.url).port or 6379)]
    context = _context(server.options.get("ssl_ca_certs")) if server.is_encrypted else None
    if context and (certificate := server.options.get("ssl_certfile")):
        context.load_cert_chain(certificate, server.options.get("ssl_keyfile"))
    yield from (Address("REDIS_URL", host, port, context) for host, port in hosts)
    for url in settings.opensearch_url.split(","):
        parts = urlsplit(url)
        encryption = opensearch_tls(settings) if parts.scheme == "https" else None
        yield Address("OPENSEARCH_URL", parts.hostname or "", parts.port or (443 if encryption else 80), encryption)


def _of_postgresql(variable: str, url: str) -> Iterator[Address]:
    # Defaults may come from variables, such as PGSSLMODE.
    defaults = {row.keyword.decode(): row.val.decode() for row in Conninfo.get_defaults() if row.val}
    parameters: dict[str, Any] = {**defaults, **conninfo_to_dict(url)}
    hosts, ports = (str(parameters.get(name) or "").split(",") for name in ("host", "port"))
    context = _context_of_libpq(parameters) if parameters.get("sslmode") == VERIFIED else None
    for host, port in zip(hosts, ports * (len(hosts) if len(ports) == 1 else 1), strict=True):
        yield Address(variable, host, int(port or 5432), context, is_postgresql=True)


def _context_of_libpq(parameters: dict[str, Any]) -> ssl.SSLContext:
    """Read the files that libpq reads: those of the parameters, else those in the home folder.

    Raises:
        OSError: a file cannot be read. libpq then does not connect either.
    """
    folder = Path("~/.postgresql").expanduser()
    root = str(parameters.get("sslrootcert") or folder / "root.crt")
    context = _context(None if root == "system" else root)
    certificate = Path(parameters.get("sslcert") or folder / "postgresql.crt")
    if parameters.get("sslcertmode") != "disable" and certificate.exists():
        key = parameters.get("sslkey") or folder / "postgresql.key"
        # With a password, even an empty one, the terminal is not asked for it.
        context.load_cert_chain(certificate, key, password=str(parameters.get("sslpassword") or ""))
    return context


def _context(authorities: str | None) -> ssl.SSLContext:
    if authorities:
        Path(authorities).stat()  # OpenSSL's error does not name the file
    return ssl.create_default_context(cafile=authorities)


def _end_of_certificate(address: Address) -> float:
    """Connect to a server; return the end of its certificate, in Unix seconds.

    Raises:
        ssl.SSLError: the certificate cannot be verified.
        OSError: the server does not answer.
    """
    assert address.context
    with socket.create_connection((address.host, address.port), timeout=SECONDS) as connection:
        if address.is_postgresql:
            connection.sendall(SSL_REQUEST)
            if connection.recv(1) != b"S":
                raise ssl.SSLError(0, "the server has no TLS")
        with address.context.wrap_socket(connection, server_hostname=address.host) as encryption:
            certificate = encryption.getpeercert() or {}
    return ssl.cert_time_to_seconds(str(certificate["notAfter"]))


CHECKS: tuple[Check, ...] = (encrypted, certificates)
