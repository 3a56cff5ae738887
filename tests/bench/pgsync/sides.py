"""This service and pgsync, asked and changed in the same way: by SQL, and by searches of the index."""

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
"""Between an order and what becomes of it; and between two orders, so that pgsync has the 0.1 s of silence after which
it looks at what was notified, before an order is changed.
"""
PROBE_SECONDS, LOOK_SECONDS, GIVE_UP_SECONDS = 0.1, 0.003, 30.0
"""Between inserts that are measured; between looks for them; and after the last of them."""
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
    """Of the totals: how many orders, and their value."""
    unit: int
    """Of that value."""

    def count(self, question: dict[str, Any]) -> int:
        return int(self.search.count(index=self.alias, body={"query": question})["count"])

    def sources(self, question: dict[str, Any], size: int) -> dict[str, dict[str, Any]]:
        """Documents by id."""
        hits = self.search.search(index=self.alias, body={"query": question, "size": size})["hits"]["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits}

    def shown(self, ids: Sequence[str]) -> Totals:
        """As the index has them."""
        number, value = self.fields
        found = self.sources({"ids": {"values": list(ids)}}, len(ids))
        return {name: (source[number], Decimal(str(source[value])) / self.unit) for name, source in found.items()}


def ours(shop: Shop) -> Side:
    search, alias = shop.database.search, naming.read_alias(shop.prefix)
    fields = ("totalOrders", "totalOrderValue")
    return Side("ours", shop.address, search, alias, shop.large.id, fields, documents.MONEY_UNIT)


def theirs(peer: Peer, shop: Shop) -> Side:
    fields = ("total_orders", "total_order_value")
    return Side("pgsync", peer.address, peer.search, INDEX, shop.large.id, fields, 1)


def delays(side: Side, insert: Callable[[], str], seconds: float) -> list[float]:
    """Milliseconds from the answer to an insert, which gives a consumer's id, until a search finds that.

    Inserts are made when they are due, whether those before were found or not.
    """
    times: list[float] = []
    pending: dict[str, float] = {}
    started = time.monotonic()
    due = started
    while pending or due < started + seconds:
        if due <= time.monotonic() and due < started + seconds:
            pending[insert()] = time.monotonic()
            due += PROBE_SECONDS
        found, now = side.shown(list(pending)), time.monotonic()
        times += [(now - pending.pop(consumer_id)) * 1000 for consumer_id in found]
        assert time.monotonic() < started + seconds + GIVE_UP_SECONDS, f"{side.name} never finds {len(pending)}"
        time.sleep(LOOK_SECONDS)
    return times


def inserts(side: Side) -> Open:
    """What inserts consumers by SQL."""
    return partial(SQLClient, side.address, partial(statement, side.environment))


def statement(environment: int, _: int) -> Statement:
    """Of another consumer."""
    [consumer_id] = new_ids("cons_", 1)
    return INSERT, (consumer_id, environment, f"{consumer_id}@example.com")


def hurried(side: Side) -> list[str]:
    """Place orders, and delete or move each a little later; gives the consumers whose they were."""
    number = DELETED + 2 * MOVED
    with psycopg.connect(side.address, autocommit=True) as sql:
        some = "SELECT id FROM consumers WHERE environment_id = %s ORDER BY id LIMIT %s"
        consumers = [consumer_id for (consumer_id,) in sql.execute(some.encode(), (side.environment, number))]
        started = time.monotonic()
        for due, text, values in sorted(_hurried(side.environment, consumers)):
            time.sleep(max(0.0, started + due - time.monotonic()))
            sql.execute(text.encode(), values)
    return consumers


def _hurried(environment: int, consumers: Sequence[str]) -> Iterator[tuple[float, str, Sequence[object]]]:
    order_ids = new_ids("ord_", DELETED + MOVED)
    for place, (order_id, consumer) in enumerate(zip(order_ids, consumers, strict=False)):
        due = place * APART_SECONDS
        yield due, ORDER, (order_id, environment, consumer)
        if place < DELETED:
            yield due + LATER_SECONDS, "DELETE FROM orders WHERE id = %s", (order_id,)
        else:
            other = consumers[place + MOVED]
            yield due + LATER_SECONDS, "UPDATE orders SET consumer_id = %s WHERE id = %s", (other, order_id)


def wrong(side: Side, consumers: Sequence[str]) -> tuple[int, int]:
    """How many of their documents have other totals than the orders do: by deleted orders, and by moved ones."""
    with psycopg.connect(side.address) as sql:
        rows = sql.execute(TOTALS.encode(), [list(consumers)]).fetchall()
    right = {consumer_id: (number, value) for consumer_id, number, value in rows}
    shown = side.shown(consumers)
    bad = [shown.get(each) != right[each] for each in consumers]
    return sum(itertools.islice(bad, DELETED)), sum(bad[DELETED:])
