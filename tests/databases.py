"""Migrated databases: the migrations run once on a server, and each database is a copy of the result."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import make_url

from infra.database import migrate
from infra.local.servers import LocalServers


@contextmanager
def migrated_database(servers: LocalServers, name: str) -> Iterator[str]:
    """Create a database with all migrations and drop it at the end; gives its address.

    The name gets the number of this process as its suffix, for DATABASE_URL may name a server that others use too.
    """
    with _database(servers, name, _template(servers.addresses["database_url"])) as url:
        yield url


@contextmanager
def empty_database(servers: LocalServers, name: str) -> Iterator[str]:
    """Create a database without tables, for the migrations of an earlier release, and drop it at the end."""
    with _database(servers, name, "template1") as url:
        yield url


@contextmanager
def _database(servers: LocalServers, name: str, template: str) -> Iterator[str]:
    name, server = f"{name}_{os.getpid()}", servers.addresses["database_url"]
    with _connect(server) as connection:
        connection.execute(
            SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(Identifier(name), Identifier(template))
        )
    try:
        yield _address(server, name)
    finally:
        with _connect(server) as connection:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def drop_template(servers: LocalServers) -> None:
    """Drop the database that the others were copied from, if there is one."""
    with _connect(servers.addresses["database_url"]) as connection:
        connection.execute(SQL("DROP DATABASE IF EXISTS {}").format(Identifier(_template_name())))


@cache
def _template(server: str) -> str:
    """Create the database to copy. It accepts no connections, because PostgreSQL copies no database that is in use."""
    name = _template_name()
    with _connect(server) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        migrate.upgrade(_address(server, name))
        connection.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(Identifier(name)))
    return name


def _template_name() -> str:
    return f"template_{os.getpid()}"


def _address(server: str, name: str) -> str:
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def _connect(server: str) -> psycopg.Connection[Any]:
    return psycopg.connect(server, autocommit=True)
