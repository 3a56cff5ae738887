"""This service and pgsync, changed by SQL and queried by searches in the same way."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import psycopg
from opensearchpy import OpenSearch

from infra.ids import new_ids
from infra.index import documents, naming
from tests.bench.clients import Open, SQLClient
from tests.bench.pgsync.peer import INDEX, Peer
from tests.bench.shop import Shop
from tests.bench.trigrams import Statement

DELETED, MOVED = 30, 60
LATER_SECONDS, APART_SECONDS = 0.4, 0.23
"""Time between an order and its change, and between two orders. pgsync processes notifications after 0.1 s of silence,
which must occur before an order is changed.
"""
PROBE_SECONDS, POLL_SECONDS, GIVE_UP_SECONDS = 0.1, 0.003, 30.0
"""Time between measured inserts, between polls, and after the last insert."""
INSERT = """
    INSERT INTO consumers (id, environment_id, version, email, full_name) VALUES (%s, %s, 1, %s, 'Somebody New')"""
ORDER = """
    INSERT INTO orders (id, environment_id, consumer_id, amount, currency_code, base_amount)
    VALUES (%s, %s, %s, 12.50, 'USD', 12.50)"""
TOTALS = """
    SELECT c.id, count(o.id), coalesce(sum(o.base_amount), 0)
    FROM consumers c LEFT JOIN orders o ON o.consumer_id = c.id
    WHERE c.id = ANY(%s) GROUP BY c.id"""
Totals = dict[str, tuple[int, Decimal]]


class Side(NamedTuple):
    name: str
    address: str
    search: OpenSearch
    alias: str
    environment: int
    fields: tuple[str, str]
    """The fields of the totals: number of orders, and their value."""
    unit: int
    """The unit of the value."""

    def count(self, question: dict[str, Any]) -> int:
        return int(self.search.count(index=self.alias, body={"query": question})["count"])

    def sources(self, question: dict[str, Any], size: int) -> dict[str, dict[str, Any]]:
        """Return documents by id."""
        hits = self.search.search(index=self.alias, body={"query": question, "size": size})["hits"]["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits}

    def shown(self, ids: Sequence[str]) -> Totals:
        """Return the totals of consumers in the index."""
        number, value = self.fields
        sources_ = self.sources({"ids": {"values": list(ids)}}, len(ids))
        return {name: (source[number], Decimal(str(source[value])) / self.unit) for name, source in sources_.items()}


def ours(shop: Shop) -> Side:
    search, alias = shop.database.search, naming.read_alias(shop.prefix)
    fields = ("totalOrders", "totalOrderValue")
    return Side("ours", shop.address, search, alias, shop.large.id, fields, documents.MONEY_UNIT)


def theirs(peer: Peer, shop: Shop) -> Side:
    fields = ("total_orders", "total_order_value")
    return Side("pgsync", peer.address, peer.search, INDEX, shop.large.id, fields, 1)


def delays(side: Side, insert: Callable[[], str], seconds: float) -> list[float]:
    """Return the milliseconds from each insert until a search finds the consumer.

    Inserts are sent when due, even if earlier consumers are not found yet.
    """
    times: list[float] = []
    pending: dict[str, float] = {}
    started = time.monotonic()
    due = started
    while pending or due < started + seconds:
        if due <= time.monotonic() and due < started + seconds:
            pending[insert()] = time.monotonic()
            due += PROBE_SECONDS
        visible, now = side.shown(list(pending)), time.monotonic()
        times += [(now - pending.pop(consumer_id)) * 1000 for consumer_id in visible]
        assert time.monotonic() < started + seconds + GIVE_UP_SECONDS, f"{side.name} never finds {len(pending)}"
        time.sleep(POLL_SECONDS)
    return times


def inserts(side: Side) -> Open:
    """Return a client that inserts consumers by SQL."""
    return partial(SQLClient, side.address, partial(statement, side.environment))


def statement(environment: int, _: int) -> Statement:
    """Return the insert of a new consumer."""
    [consumer_id] = new_ids("cons_", 1)
    return INSERT, (consumer_id, environment, f"{consumer_id}@example.com")


def change_orders_early(side: Side) -> list[str]:
    """Place orders, delete or move each a little later, and return their consumers."""
    number = DELETED + 2 * MOVED
    with psycopg.connect(side.address, autocommit=True) as sql:
        some = "SELECT id FROM consumers WHERE environment_id = %s ORDER BY id LIMIT %s"
        consumers = [consumer_id for (consumer_id,) in sql.execute(some.encode(), (side.environment, number))]
        started = time.monotonic()
        for due, text, values in sorted(_early_changes(side.environment, consumers)):
            time.sleep(max(0.0, started + due - time.monotonic()))
            sql.execute(text.encode(), values)
    return consumers


def _early_changes(environment: int, consumers: Sequence[str]) -> Iterator[tuple[float, str, Sequence[object]]]:
    order_ids = new_ids("ord_", DELETED + MOVED)
    for index, (order_id, consumer) in enumerate(zip(order_ids, consumers, strict=False)):
        due = index * APART_SECONDS
        yield due, ORDER, (order_id, environment, consumer)
        if index < DELETED:
            yield due + LATER_SECONDS, "DELETE FROM orders WHERE id = %s", (order_id,)
        else:
            other = consumers[index + MOVED]
            yield due + LATER_SECONDS, "UPDATE orders SET consumer_id = %s WHERE id = %s", (other, order_id)


def wrong(side: Side, consumers: Sequence[str]) -> tuple[int, int]:
    """Return the numbers of documents with wrong totals, for deleted and for moved orders."""
    with psycopg.connect(side.address) as sql:
        rows = sql.execute(TOTALS.encode(), [list(consumers)]).fetchall()
    right = {consumer_id: (number, value) for consumer_id, number, value in rows}
    shown = side.shown(consumers)
    bad = [shown.get(each) != right[each] for each in consumers]
    return sum(itertools.islice(bad, DELETED)), sum(bad[DELETED:])
