"""Statements of a batch read only their own rows, even if the statistics lack the environment."""

import json
from typing import Any, LiteralString

import psycopg
import pytest
import sqlalchemy as sa

from api.audiences import writes as audiences
from api.consumers import batches, uniqueness
from api.consumers import writes as consumers
from api.orders import batches as order_batches
from api.orders import writes as orders
from infra.database.engine import sqlalchemy_url
from tests.database.conftest import Environment, new_environment

ROWS, BATCH = 3000, 20
PAGES_OF_AN_ITEM = 20
"""A few index pages and a table page, several times; a scan of the environment reads hundreds for all items."""


@pytest.fixture(scope="module")
def grown(database_url: str) -> tuple[Environment, dict[str, Any]]:
    """An environment grown after the last ANALYZE, with ids, emails and external ids of some of its consumers."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        old, new = (Environment(database_url, new_environment(connection), connection) for _ in range(2))
        for environment in (old, new):
            environment.run(
                """INSERT INTO consumers (environment_id, email, external_id)
                   SELECT %s, g || '@example.com', 'x' || g FROM generate_series(1, %s) g""",
                environment.id,
                ROWS,
            )
            environment.run(
                """INSERT INTO orders (environment_id, consumer_id, external_id, amount, currency_code, base_amount)
                   SELECT environment_id, id, external_id, 1, 'USD', 1 FROM consumers WHERE environment_id = %s""",
                environment.id,
            )
            if environment is old:
                environment.run("VACUUM ANALYZE consumers, orders")
        rows = new.rows(
            "SELECT id, email, external_id FROM consumers WHERE environment_id = %s LIMIT %s", new.id, BATCH
        )
        order_rows = new.rows(
            "SELECT id, to_json(o)::text FROM orders o WHERE environment_id = %s LIMIT %s", new.id, BATCH
        )
    known: dict[str, Any] = dict(
        zip(("ids", "emails", "external_ids"), map(list, zip(*rows, strict=True)), strict=True)
    )
    known |= {"order_ids": [row[0] for row in order_rows], "order_rows": f"[{','.join(row[1] for row in order_rows)}]"}
    return new, known | {"rows": json.dumps([{"id": consumer_id} for consumer_id in known["ids"]])}


NONE, FREE = [None] * BATCH, [f"free {n}" for n in range(BATCH)]
ITEMS = list(range(BATCH))


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (uniqueness.OWNERS, {"email": FREE, "external_id": FREE}),
        (uniqueness.OWNERS, {"email": "emails", "external_id": "external_ids"}),
        (uniqueness.RELEASE, {"ids": "ids", "email": "ids", "external_id": "ids"}),
        (batches.LOCK_BY["externalId"], {"keys": "external_ids", "reserved": []}),
        (batches.LOCK_BY["email"], {"keys": "emails", "reserved": []}),
        (batches.LOCK_BY["email"], {"keys": FREE, "reserved": []}),
        (consumers.LOCK, {"ids": "ids", "reserved": []}),
        (orders.FIND_CONSUMERS, {"items": ITEMS, "emails": "emails", "external_ids": NONE}),
        (orders.FIND_CONSUMERS, {"items": ITEMS, "emails": NONE, "external_ids": "external_ids"}),
        (orders.LOCK_CONSUMERS, {"ids": "ids", "reserved": []}),
        (orders.FIND_TAKEN, {"external_ids": "external_ids", "own_id": None}),
        (order_batches.FIND, {"external_ids": "external_ids"}),
        (order_batches.LOCK, {"ids": "order_ids"}),
        (orders.UPDATE, {"rows": "order_rows", "ids": "order_ids"}),
        (audiences.LOCK_CONSUMERS, {"ids": "ids"}),
        (
            consumers.UPDATE,
            {"rows": "rows", "ids": "ids", "with_metadata": []},
        ),
    ],
)
def test_batch_in_a_new_environment_reads_only_its_own_rows(
    grown: tuple[Environment, dict[str, Any]], statement: sa.TextClause, values: dict[str, Any]
) -> None:
    environment, stored = grown
    parameters = {name: stored[value] if isinstance(value, str) else value for name, value in values.items()}
    engine = sa.create_engine(sqlalchemy_url(environment.url))
    with engine.connect() as connection:
        explain = sa.text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}")
        [result] = connection.execute(explain, {"environment_id": environment.id} | parameters).scalar_one()
    engine.dispose()
    plan = result["Plan"]
    if plan["Node Type"] == "ModifyTable":  # only the part that finds the rows
        [plan] = [part for part in plan["Plans"] if part["Parent Relationship"] == "Outer"]
    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    assert 0 < pages <= BATCH * PAGES_OF_AN_ITEM


def test_triggers_join_no_rows_before_and_after_a_statement(environment: Environment) -> None:
    """A session plans such a join for the rows of its first call: for a single row, a loop over all pairs of rows."""
    query: LiteralString = "SELECT proname, prosrc FROM pg_proc WHERE prosrc ~ 'old_rows' AND prosrc ~ 'new_rows'"
    functions = environment.rows(query)
    assert {"consumers_to_outbox", "orders_to_totals"} <= {name for name, _ in functions}
    assert [name for name, source in functions if "JOIN" in source] == []
