"""Growth of each figure with the number of consumers: constant, or linear at most."""

from collections.abc import Iterator

import msgspec
import sqlalchemy as sa

from tests.bench.bench import Bench
from tests.bench.cases import cases
from tests.bench.clients import HTTPClient
from tests.bench.shop import Shop, key
from tests.bench.sizes import index_bytes
from tests.bench.timing import by_turns, exponent, seconds, spread
from tests.bench.wire import Connection
from tests.bench.writes import Case, Writer, next_number
from tests.bench.writes import cases as written

TURNS = 30
LEAST = 5_000
"""Minimum number of consumers, so that each question has hits."""
CHANGES = 5_000
CASES = (
    *("search= a name", "q= a name", "q= two words", "q= e-mail part", "q= phone end", "q= a typo", "email="),
    *("filter= totalOrderValue range", "filter= metadata equality", "filter= fullName contains", "count=true"),
    *("audienceId, stored", "audienceId, dynamic", "include=audiences, 20 dynamic"),
)
CHANGE = sa.text("""
    UPDATE consumers SET version = version + 1
    WHERE id IN (SELECT id FROM consumers WHERE environment_id = :environment LIMIT :rows)""")


def measure(bench: Bench) -> None:
    sizes = [size for size in (bench.size // 100, bench.size // 10, bench.size) if size >= LEAST]
    if len(sizes) < 2:
        raise ValueError(f"growth needs {10 * LEAST:,} consumers")
    by_size: list[dict[str, float]] = []
    for size in sizes:
        with bench.shop_of(size) as shop:
            by_size.append(dict(figures(shop)))
    rows = [
        [name, *(f"{each[name]:,.1f}" for each in by_size), f"{exponent(sizes, [each[name] for each in by_size]):.2f}"]
        for name in by_size[0]
    ]
    bench.report.say(
        "Exponent: 0 is constant, 1 is linear in the number of consumers. Milliseconds, median "
        f"of {TURNS}, one client, unless another unit is given."
    )
    bench.report.table(["", *(f"{size:,}" for size in sizes), "exponent"], rows)


def figures(shop: Shop) -> Iterator[tuple[str, float]]:
    with Connection(shop.service.url) as api:
        for case in cases(shop):
            if case.name in CASES or case.name.startswith("list "):
                yield case.name, read_time(api, [question.api for question in case.questions])
        with shop.account() as account:
            writer = Writer(shop.service.url, key(account), account.live_environment, ())
            created = msgspec.json.decode(api.ask(writer.post_batch(next_number())[0]))
            writer = writer._replace(consumers=[row["id"] for row in created])
            for one in written(writer):
                yield one.name, write_time(shop, one)
            with shop.indexing():
                shop.settled()
                yield f"drain of {CHANGES:,} changes, s", drain_seconds(shop)
    yield "rebuild, filling, s", shop.built.filling
    yield "rebuild, verification, s", shop.built.verifying
    yield "index, MB", index_bytes(shop) * shop.consumers / 1e6


def read_time(api: Connection, requests: list[bytes]) -> float:
    times = by_turns({"api": lambda turn: api.ask(requests[turn % len(requests)])}, TURNS, warm_up=len(requests))
    return spread(times["api"]).median


def write_time(shop: Shop, case: Case) -> float:
    client = HTTPClient(shop.service.url, case.request)
    times = by_turns({"api": lambda _: client.ask(next_number())}, TURNS, warm_up=3)
    client.close()
    return spread(times["api"]).median


def drain_seconds(shop: Shop) -> float:
    """Return the seconds from the commit of many changes until all are searchable."""
    with shop.database.engine.begin() as connection:
        connection.execute(CHANGE, {"environment": shop.large.id, "rows": min(CHANGES, shop.size)})
    return seconds(shop.settled)
