"""Checks of the connections to PostgreSQL and Redis: poolers, hosts, cluster mode."""

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from infra.database.failures import connection_failure
from infra.doctor.checks import SECONDS, Check, Finding, Servers
from infra.redis_client import refuse_cluster


def sessions(servers: Servers) -> Iterator[Finding]:
    """Find a pooler that takes the sessions of connections."""
    with servers.engine.connect():
        yield from ()


def database_hosts(servers: Servers) -> Iterator[Finding]:
    """Find hosts of PostgreSQL that do not answer, in both addresses."""
    settings = servers.settings
    for variable, url in (("DATABASE_URL", settings.database_url), ("DATABASE_SESSION_URL", settings.session_url)):
        parameters: dict[str, Any] = conninfo_to_dict(url) | {"connect_timeout": SECONDS, "target_session_attrs": "any"}
        hosts, ports = (str(parameters.get(name) or "").split(",") for name in ("host", "port"))
        for host, port in zip(hosts, ports * (len(hosts) if len(ports) == 1 else 1), strict=True):
            try:
                psycopg.connect(**(parameters | {"host": host, "port": port})).close()
            except psycopg.OperationalError as error:
                yield Finding(
                    f"The host {host} of {variable} does not answer ({connection_failure(error)})",
                    f"Start PostgreSQL there, or correct {variable}",
                )
        if settings.database_session_url is None:
            return


def redis_server(servers: Servers) -> Iterator[Finding]:
    """Find a server of Redis that does not answer, or runs in cluster mode."""
    servers.redis.ping()
    refuse_cluster(servers.settings)
    yield from ()


CHECKS: tuple[Check, ...] = (sessions, database_hosts, redis_server)
