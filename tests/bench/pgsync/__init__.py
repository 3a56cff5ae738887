"""pgsync beside this service: the same rows, the same machine, the same OpenSearch."""

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
from tests.bench.measuring import seconds, spread, tail
from tests.bench.pgsync import sides
from tests.bench.pgsync.peer import DOCUMENTS, INDEX, VERSION, Peer, opened
from tests.bench.pgsync.sides import Side
from tests.bench.rebuild import bare, render
from tests.bench.shop import Shop, key
from tests.bench.wire import Connection
from tests.bench.writes import Writer, next_number
from tests.waiting import wait_until

PROCESSES = 2
"""That build an index, unless there is less to do it with."""
MOST = 50_000
"""Consumers, for it takes its time."""
CHANGES, SOME = 10_000, 100
RATES, SECONDS = (0, 50, 200), 6.0
REFRESH, USUAL_REFRESH = "100ms", "1s"
"""Of pgsync's index, so that it is not what is measured; and as it is where nobody says otherwise."""
BETWEEN = 100
"""Looks at pgsync's index that stays as it is, between two spells."""
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
            shop.settled()  # so its workers are there
            speeds = changed_here(shop, ours), changed_there(theirs)
            rows.append([f"{CHANGES:,} changes by one statement, a second", *compared(*speeds)])
            report.table(["", "ours", "pgsync", "ratio"], rows)
            report.say(
                "From the answer to a POST, or the commit of an INSERT, until a search finds it, milliseconds; "
                f"pgsync's index is refreshed each {REFRESH}, not each {USUAL_REFRESH} as usually."
            )
            fresh = list(freshness(bench, peer, ours, theirs))
            report.table(["", "inserts/s beside it", "measured", "p50 (p10–p90)", "p99", "max"], fresh)
            report.say(
                f"Documents that are wrong for good, of orders that were changed {sides.LATER_SECONDS} s after their "
                f"insert, with nothing beside it; pgsync's index refreshed each {USUAL_REFRESH}."
            )
            report.table(["", "ours", "pgsync"], hurried(shop, peer, ours, theirs))


def synced(bench: Bench, peer: Peer, consumers: int) -> list[list[str]]:
    """Rows of how fast the index is filled at first; ours before and after pgsync's, whose merges go on for a while."""
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
            ("ours: with its verification", verified, theirs),
            (f"ours: `_bulk` alone of its documents, {PROCESSES} processes", bulk, theirs),
            ("pgsync's documents and mapping as ours are", filling, alike),
        )
    ]


def synced_alike(bench: Bench, consumers: int) -> float:
    """Documents a second that pgsync syncs at first, if a plugin makes them, by our code, to be found as ours are."""
    shop = bench.shop
    with opened(shop, bench.servers, bench.folder / "alike", consumers, DOCUMENTS) as peer:
        peer.prepare()
        peer.run("bootstrap")
        taken = seconds(lambda: peer.run("pgsync"))
        peer.settled(BETWEEN)
        ours, theirs = sides.ours(shop), sides.theirs(peer, shop)
        some = theirs.sources({"match_all": {}}, SOME)
        for source in some.values():
            del source["_meta"]
        expected = ours.sources({"ids": {"values": list(some)}}, SOME)
        # Whose members the audiences are pgsync is not told.
        assert some == {name: source | {"audienceIds": []} for name, source in expected.items()}
        assert theirs.count({"match_all": {}}) == consumers
        return consumers / taken


def filled(shop: Shop) -> tuple[float, float]:
    """Documents a second of a rebuild, and of one with its verification."""
    built = build(shop.database.engine, shop.database.settings, PROCESSES)
    return total(shop) / built.filling, total(shop) / (built.filling + built.verifying)


def total(shop: Shop) -> int:
    """All its consumers, those too that parts before wrote."""
    with shop.database.engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM consumers")).scalar_one())


def hurried(shop: Shop, peer: Peer, *both: Side) -> list[list[str]]:
    """Rows of how many documents are wrong."""
    peer.search.indices.put_settings(index=INDEX, body={"index.refresh_interval": USUAL_REFRESH})
    peer.settled()
    whose = [sides.hurried(side) for side in both]
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
    """Changes a second, from commit until all are searchable."""
    return change(side) / seconds(shop.settled)


def changed_there(side: Side) -> float:
    """As `changed_here`."""
    changes, started = change(side), time.monotonic()
    question = {"prefix": {"external_id.keyword": "changed "}}
    wait_until(lambda: side.count(question) >= changes, 120, "pgsync's index")
    return changes / (time.monotonic() - started)


def change(side: Side) -> int:
    """Change so many consumers."""
    with psycopg.connect(side.address) as sql:
        return sql.execute(CHANGE.encode(), (side.environment, CHANGES)).rowcount


def freshness(bench: Bench, peer: Peer, ours: Side, theirs: Side) -> Iterator[list[str]]:
    """Rows of how long it takes until an insert is found: ours over HTTP, as people write, and by SQL."""
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
            # A connection that nobody used for a while is closed.
            with Connection(shop.service.url) as api, beside:
                yield ["ours, over HTTP", str(rate), *figures(sides.delays(ours, partial(post, api), SECONDS))]
            with clients.paced(sides.inserts(ours), rate, SECONDS):
                yield ["ours, by SQL", str(rate), *figures(sides.delays(ours, partial(insert, own, ours), SECONDS))]
            peer.settled(BETWEEN)
            with clients.paced(sides.inserts(theirs), rate, SECONDS):
                yield ["pgsync", str(rate), *figures(sides.delays(theirs, partial(insert, sql, theirs), SECONDS))]


def insert(sql: psycopg.Connection[Any], side: Side) -> str:
    """Insert a consumer by SQL; gives its id."""
    text, values = sides.statement(side.environment, 0)
    sql.execute(text.encode(), values)
    return str(values[0])


def figures(times: list[float]) -> list[str]:
    return [str(len(times)), f"{spread(times):.0f}", f"{tail(times):.0f}", f"{max(times):.0f}"]
