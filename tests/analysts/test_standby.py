"""The views of docs/analysts-tools.md: an analyst sees the rows of one merchant, without personal data."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from infra.local.servers import LocalServers
from tests.analysts.standby import ANALYST, GROUP, VIEWS, analysts_url, install, rows
from tests.databases import migrated_database


class Connections(NamedTuple):
    """The connections to a database in which the statements of the page have been run."""

    owner: psycopg.Connection[Any]
    analyst: psycopg.Connection[Any]


@pytest.fixture(scope="module")
def connections(servers: LocalServers) -> Iterator[Connections]:
    with migrated_database(servers, "analysts") as url, psycopg.connect(url, autocommit=True) as owner:
        install(owner)
        with psycopg.connect(analysts_url(url), autocommit=True) as analyst:
            yield Connections(owner, analyst)
        owner.execute(SQL("DROP OWNED BY {} CASCADE").format(Identifier(GROUP)))
        for name in (ANALYST, GROUP):
            owner.execute(SQL("DROP ROLE {}").format(Identifier(name)))


def test_analyst_sees_the_rows_of_one_merchant_only(connections: Connections) -> None:
    owner, analyst = connections
    [(environment,)] = rows(owner, "SELECT environment_id FROM analysts.readers")
    for view, (table, column) in VIEWS.items():
        expected = rows(owner, f"SELECT {column} FROM public.{table} WHERE environment_id = {environment} ORDER BY 1")
        assert 0 < len(expected) < len(rows(owner, f"SELECT FROM public.{table}"))
        assert rows(analyst, f"SELECT {column} FROM {view} ORDER BY 1") == expected
        assert "ecret" not in str(rows(analyst, f"SELECT * FROM {view}"))
    assert rows(analyst, "SELECT sum(total_order_value), sum(total_orders) FROM consumers") == [(62.5, 5)]
    # The views show nothing to other roles: the role that logged in decides.
    assert rows(owner, "SELECT count(*) FROM analysts.consumers") == [(0,)]


def test_views_are_barriers_and_nothing_else_is_granted(connections: Connections) -> None:
    owner, analyst = connections
    barriers = (
        "SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'analysts'::regnamespace AND relkind = 'v'"
    )
    assert dict(rows(owner, barriers)) == {key: ["security_barrier=true"] for key in VIEWS}
    granted = rows(
        analyst,
        """SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
               AND n.nspname !~ '^pg_toast' AND has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE')""",
    )
    assert {name for (name,) in granted} == set(VIEWS)
    for statement in (
        "SELECT * FROM public.consumers",
        "SELECT * FROM analysts.readers",
        "UPDATE analysts.readers SET environment_id = 1",
        f"SET SESSION AUTHORIZATION {owner.info.user}",
        "DELETE FROM consumers",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            analyst.execute(statement.encode())


def test_deleted_organization_takes_its_analysts_along(connections: Connections) -> None:
    owner, analyst = connections
    with owner.transaction(force_rollback=True):
        for table in ("audiences", "consumers", "environments"):
            owner.execute(f"DELETE FROM {table}".encode())
        assert rows(owner, "SELECT * FROM analysts.readers") == []
    assert rows(analyst, "SELECT count(*) FROM consumers") == [(5,)]
