"""Connections to Redis: a single server, or the primary that Redis Sentinel names.

`REDIS_URL` is `redis://…` or `rediss://…` for a single server. With Sentinel, the URL lists the Sentinels and names the
service: `redis+sentinel://user:password@host:26379,host:26379/SERVICE/DATABASE`. User and password are those of the
server; the Sentinels have their own, in the options `sentinel_username` and `sentinel_password`.

Certificates are always verified: with the authorities of `REDIS_CA`, or the system's.
"""

from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import SplitResult, quote, urlsplit

import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis import Redis
from redis.connection import SSLConnection, parse_url
from redis.exceptions import RedisError

from infra.settings import NO_CLUSTER, Settings, SettingsError

CHECK_SECONDS = 2
SENTINEL_PORT = 26_379
SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")

AsyncRedis: TypeAlias = redis.asyncio.Redis
Node: TypeAlias = tuple[str, int]


class Server(NamedTuple):
    """The server of `REDIS_URL`, with the options of a connection."""

    url: str
    """`redis://…` or `rediss://…`: of the server, or of the first Sentinel with login and database of the server."""
    options: dict[str, Any]
    """Login, database and TLS, as redis-py names them; without host and port."""
    is_encrypted: bool
    sentinels: list[Node]
    """Empty for a single server."""
    service: str
    """The name that the Sentinels have for the server."""
    sentinel_options: dict[str, Any]
    """Login and TLS of the Sentinels. Without a repetition: the next Sentinel is asked instead."""


def server_of(settings: Settings) -> Server:
    """Read `REDIS_URL` and `REDIS_CA`."""
    parts = urlsplit(settings.redis_url)
    scheme, _, kind = parts.scheme.partition("+")
    sentinels, service = (_sentinels(parts)) if kind else ([], "")
    url = _first_url(parts, scheme) if kind else settings.redis_url
    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]  # redis is partly typed
    is_encrypted = options.pop("connection_class", None) is SSLConnection
    for name in ("host", "port"):
        options.pop(name, None)
    login = {name.removeprefix("sentinel_"): options.pop(name) for name in SENTINEL_OPTIONS if name in options}
    if is_encrypted and settings.redis_ca:
        options["ssl_ca_certs"] = settings.redis_ca
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    return Server(url, options, is_encrypted, sentinels, service, login | tls | {"ssl": is_encrypted, "retry": None})


def broker_url(server: Server) -> str:
    """Return the address for Celery: login, host and database. Celery fails on further options in an address."""
    scheme, netloc = urlsplit(server.url)[:2]
    login = ":".join(quote(server.options.get(name) or "", safe="") for name in ("username", "password"))
    return f"{scheme}://{login}@{netloc.rpartition('@')[2]}/{server.options.get('db', 0)}"


def open_redis(settings: Settings, *, seconds: float, **options: Any) -> Redis:
    """Open a client.

    Args:
        settings: with the address.
        seconds: longest wait for a connection, and for an answer.
        options: further options of the connection, as redis-py names them.
    """
    server, times = server_of(settings), _times(seconds)
    options = server.options | times | options
    if not server.sentinels:
        return Redis.from_url(server.url, **options)
    sentinel = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]  # redis is partly typed
        server.sentinels, sentinel_kwargs=server.sentinel_options | times, ssl=server.is_encrypted, **options
    )
    client: Redis = sentinel.master_for(server.service)  # type: ignore[no-untyped-call]  # redis is partly typed
    return client


def open_async_redis(settings: Settings, *, seconds: float, **options: Any) -> AsyncRedis:
    """Open a client for asyncio; the arguments are those of `open_redis`."""
    server, times = server_of(settings), _times(seconds)
    options = server.options | times | options
    if not server.sentinels:
        return AsyncRedis.from_url(server.url, **options)
    sentinel = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]  # redis is partly typed
        server.sentinels, sentinel_kwargs=server.sentinel_options | times, ssl=server.is_encrypted, **options
    )
    client: AsyncRedis = sentinel.master_for(server.service)
    return client


def refuse_cluster(settings: Settings) -> None:
    """Check that the server, if it answers, is no node of a Redis Cluster.

    Raises:
        SettingsError: it is one.
    """
    with suppress(RedisError), open_redis(settings, seconds=CHECK_SECONDS, retry=None) as client:
        if client.info("cluster").get("cluster_enabled"):
            raise SettingsError(f"REDIS_URL is invalid: the server runs in cluster mode, and {NO_CLUSTER}")


def _times(seconds: float) -> dict[str, Any]:
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds}


def _sentinels(parts: SplitResult) -> tuple[list[Node], str]:
    """Return the Sentinels, and the name of the service."""
    nodes = [urlsplit(f"//{node}") for node in parts.netloc.rpartition("@")[2].split(",")]
    service = parts.path.strip("/").partition("/")[0]
    return [(node.hostname or "", node.port or SENTINEL_PORT) for node in nodes], service


def _first_url(parts: SplitResult, scheme: str) -> str:
    """Return the URL of a single server, with the first Sentinel as the host."""
    login, at, nodes = parts.netloc.rpartition("@")
    database = parts.path.strip("/").partition("/")[2] or "0"
    first = parts._replace(scheme=scheme, netloc=f"{login}{at}{nodes.partition(',')[0]}", path=f"/{database}")
    return first.geturl()
