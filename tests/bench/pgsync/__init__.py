"""Comparison with pgsync on the same rows, machine and OpenSearch."""

import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
import psycopg
import sqlalchemy as sa

from tests.bench.bench import Bench
from tests.bench.clients import HTTPClient
from tests.bench.indexing import build
from tests.bench.pgsync import sides
from tests.bench.pgsync.peer import DOCUMENTS, INDEX, VERSION, Peer, opened
from tests.bench.pgsync.sides import Side
from tests.bench.rebuild import bare, render
from tests.bench.shop import Shop, key
from tests.bench.timing import seconds, spread, tail
from tests.bench.wire import Connection
from tests.bench.writes import Writer, next_number
from tests.waiting import wait_until

PROCESSES = 2
"""Number of processes that build an index."""
MOST = 50_000
"""Maximum number of consumers, because pgsync is slow."""
CHANGES, SOME = 10_000, 100
RATES, SECONDS = (0, 50, 200), 6.0
REFRESH, USUAL_REFRESH = "100ms", "1s"
"""Refresh interval of pgsync's index for the measurement, and OpenSearch's default."""
EQUAL_POLLS_BETWEEN = 100
"""Polls with an unchanged index that end the wait between two measurements."""
CHANGE = """
    UPDATE consumers SET external_id = 'changed ' || id
    WHERE id IN (SELECT id FROM consumers WHERE environment_id = %s ORDER BY id DESC LIMIT %s)"""


def measure(bench: Bench) -> None:
    shop, report, consumers = bench.shop, bench.report, min(bench.size, MOST)
    with opened(shop, bench.servers, bench.folder / "peer", consumers) as peer:
        report.say(f"pgsync {VERSION}, totals by a plugin, {consumers:,} consumers with their orders.")
        rows = synced(bench, peer, consumers)
        ours, theirs = sides.ours(shop), sides.theirs(peer, shop)
        with peer.following(), shop.indexing():
            with psycopg.connect(ours.address) as sql:
                sql.execute(CHANGE.encode(), (ours.environment, 1))
            shop.settled()  # so that the workers are running
            speeds = changed_here(shop, ours), changed_there(theirs)
            rows.append([f"{CHANGES:,} changes by one statement, per second", *compared(*speeds)])
            report.table(["", "ours", "pgsync", "ratio"], rows)
            report.say(
                "Milliseconds from the response of a POST, or the commit of an INSERT, until the consumer is found; "
                f"refresh interval of pgsync's index: {REFRESH} instead of the default {USUAL_REFRESH}."
            )
            fresh = list(freshness(bench, peer, ours, theirs))
            report.table(["", "background inserts/s", "measured", "p50 (p10–p90)", "p99", "max"], fresh)
            report.say(
                f"Documents that stay wrong after changes of orders {sides.LATER_SECONDS} s after the insert, without "
                f"other load; refresh interval of pgsync's index: {USUAL_REFRESH}."
            )
            report.table(["", "ours", "pgsync"], hurried(shop, peer, ours, theirs))


def synced(bench: Bench, peer: Peer, consumers: int) -> list[list[str]]:
    """Return rows with the speed of the first fill; ours is measured before and after pgsync's late merges."""
    shop, file = bench.shop, bench.folder / "documents"
    render(shop, file)
    bulk = total(shop) / bare(shop, file, PROCESSES)
    file.unlink()
    alike = synced_alike(bench, consumers)
    first = filled(shop)
    peer.run("bootstrap")
    theirs = consumers / seconds(lambda: peer.run("pgsync"))
    peer.settled()
    filling, verified = (statistics.mean(each) for each in zip(first, filled(shop), strict=True))
    return [
        [f"initial sync, documents/s; {name}", *compared(own, peers)]
        for name, own, peers in (
            (f"ours: {PROCESSES} processes", filling, theirs),
            ("ours: with verification", verified, theirs),
            (f"ours: only `_bulk` of the documents, {PROCESSES} processes", bulk, theirs),
            ("pgsync with our documents and mapping", filling, alike),
        )
    ]


def synced_alike(bench: Bench, consumers: int) -> float:
    """Return documents per second of pgsync's first fill with a plugin that builds our documents."""
    shop = bench.shop
    with opened(shop, bench.servers, bench.folder / "alike", consumers, DOCUMENTS) as peer:
        peer.prepare()
        peer.run("bootstrap")
        taken = seconds(lambda: peer.run("pgsync"))
        peer.settled(EQUAL_POLLS_BETWEEN)
        ours, theirs = sides.ours(shop), sides.theirs(peer, shop)
        sample = theirs.sources({"match_all": {}}, SOME)
        for source in sample.values():
            del source["_meta"]
        expected = ours.sources({"ids": {"values": list(sample)}}, SOME)
        # pgsync does not get the members of audiences.
        assert sample == {name: source | {"audienceIds": []} for name, source in expected.items()}
        assert theirs.count({"match_all": {}}) == consumers
        return consumers / taken


def filled(shop: Shop) -> tuple[float, float]:
    """Return documents per second of a rebuild, without and with verification."""
    built = build(shop.database.engine, shop.database.settings, PROCESSES)
    return total(shop) / built.filling, total(shop) / (built.filling + built.verifying)


def total(shop: Shop) -> int:
    """Return the number of all consumers, including those of earlier parts."""
    with shop.database.engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM consumers")).scalar_one())


def hurried(shop: Shop, peer: Peer, *both: Side) -> list[list[str]]:
    """Return rows with the number of wrong documents."""
    peer.search.indices.put_settings(index=INDEX, body={"index.refresh_interval": USUAL_REFRESH})
    peer.settled()
    whose = [sides.change_orders_early(side) for side in both]
    shop.settled()
    peer.settled()
    wrong = [sides.wrong(side, consumers) for side, consumers in zip(both, whose, strict=True)]
    return [
        [f"{sides.DELETED} orders deleted, of {sides.DELETED}", *(str(deleted) for deleted, _ in wrong)],
        [f"{sides.MOVED} orders moved to another consumer, of {2 * sides.MOVED}", *(str(moved) for _, moved in wrong)],
    ]


def compared(ours: float, theirs: float) -> list[str]:
    return [f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.1f}"]


def changed_here(shop: Shop, side: Side) -> float:
    """Return changes per second of this service, from the commit until all are searchable."""
    return change(side) / seconds(shop.settled)


def changed_there(side: Side) -> float:
    """Return changes per second of pgsync."""
    changes, started = change(side), time.monotonic()
    question = {"prefix": {"external_id.keyword": "changed "}}
    wait_until(lambda: side.count(question) >= changes, 120, "pgsync's index")
    return changes / (time.monotonic() - started)


def change(side: Side) -> int:
    """Change many consumers, and return their number."""
    with psycopg.connect(side.address) as sql:
        return sql.execute(CHANGE.encode(), (side.environment, CHANGES)).rowcount


def freshness(bench: Bench, peer: Peer, ours: Side, theirs: Side) -> Iterator[list[str]]:
    """Yield rows with the time until an insert is found: ours over HTTP and by SQL, and pgsync's."""
    shop, clients = bench.shop, bench.clients
    with (
        shop.account() as account,
        psycopg.connect(ours.address, autocommit=True) as own,
        psycopg.connect(theirs.address, autocommit=True) as sql,
    ):
        writer = Writer(shop.service.url, key(account), account.live_environment, ())
        theirs.search.indices.put_settings(index=INDEX, body={"index.refresh_interval": REFRESH})

        def post(api: Connection) -> str:
            return str(msgspec.json.decode(api.ask(writer.post(next_number())[0]))["id"])

        for rate in RATES:
            beside = clients.paced(partial(HTTPClient, writer.url, writer.post), rate, SECONDS)
            # A new connection, because the server closes idle connections.
            with Connection(shop.service.url) as api, beside:
                yield ["ours, over HTTP", str(rate), *figures(sides.delays(ours, partial(post, api), SECONDS))]
            with clients.paced(sides.inserts(ours), rate, SECONDS):
                yield ["ours, by SQL", str(rate), *figures(sides.delays(ours, partial(insert, own, ours), SECONDS))]
            peer.settled(EQUAL_POLLS_BETWEEN)
            with clients.paced(sides.inserts(theirs), rate, SECONDS):
                yield ["pgsync", str(rate), *figures(sides.delays(theirs, partial(insert, sql, theirs), SECONDS))]


def insert(sql: psycopg.Connection[Any], side: Side) -> str:
    """Insert a consumer by SQL, and return the id."""
    text, values = sides.statement(side.environment, 0)
    sql.execute(text.encode(), values)
    return str(values[0])


def figures(times: list[float]) -> list[str]:
    return [str(len(times)), f"{spread(times):.0f}", f"{tail(times):.0f}", f"{max(times):.0f}"]
