"""Random live questions: none may end OpenSearch, or be an error of the service, and lists beside must stay fast."""

import json
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection as ConnectionOfProcess
from multiprocessing.synchronize import Event
from random import Random
from typing import Any

import httpx
import msgspec
import sqlalchemy as sa

from api.analytics import bodies
from api.analytics.fields import Refused
from infra.exports.attributes import Attribute
from infra.local.sample.people import PEOPLE
from tests.bench.bench import Bench
from tests.bench.report import progress
from tests.bench.shop import Shop
from tests.bench.timing import spread, tail
from tests.bench.wire import Connection, get

SECONDS, IDLE_SECONDS, PAUSE_SECONDS = 60.0, 15.0, 0.01
LOWEST_PRIORITY = 19
PROGRESS_QUESTIONS = 500
ATTRIBUTES = [Attribute(path, "text") for path in ("country", "source", "tags", "loyalty.tier", "loyalty.points")]
DECLARE = """
    UPDATE organizations SET attributes = CAST(:attributes AS jsonb)
    WHERE id = (SELECT organization_id FROM environments WHERE id = :environment)"""
EVERYBODY: dict[str, Any] = {"match_all": {}}
VALUE = {"field": "totalOrderValue"}
ALL_DAYS = {"field": "createdAt", "calendar_interval": "day", "hard_bounds": {"min": "2024-01-01", "max": "2026-12-31"}}


def _filters(number: int) -> dict[str, Any]:
    return {"filters": {"filters": {str(n): EVERYBODY for n in range(number)}}}


PERSONAL = re.compile(r'[^\s"]@[^\s"]|\+[0-9]{6}|"C-[0-9]')
"""An address, a phone number, or an external id of the population."""
WORD = re.compile(r"\w+")
NAMES = {part.text for group in PEOPLE for part in (*group.given, *group.family) if len(part.text) > 3}
HEAVY: list[dict[str, Any]] = [
    {"a": _filters(20) | {"aggs": {f"m{n}": {"sum": VALUE} for n in range(4)}}},
    {"a": _filters(4) | {"aggs": {f"m{n}": {"percentiles": VALUE} for n in range(2)}}},
    {f"a{n}": {"percentiles": VALUE} for n in range(12)},
    {f"a{n}": {"cardinality": {"field": "id"}} for n in range(8)},
    {f"a{n}": {"terms": {"field": f"attributes.{path}", "size": 1000}} for n, path in
     enumerate(("loyalty.points", "tags"))},
    {"a": {"date_histogram": ALL_DAYS, "aggs": {f"m{n}": {"stats": VALUE} for n in range(6)}}},
    {"a": {"terms": {"field": "phoneCountry", "size": 9}, "aggs": {"d": {"date_histogram": ALL_DAYS}}}},
    {"a": {"composite": {"size": 1000, "sources": [
        {"c": {"terms": {"field": "phoneCountry"}}}, {"o": {"terms": {"field": "totalOrders"}}},
        {"d": {"date_histogram": {"field": "createdAt", "calendar_interval": "day"}}}]}}},
]  # fmt: skip
"""Bodies close to the limits of costs."""
NUMBERS, DATES = ("totalOrders", "totalOrderValue"), ("createdAt", "updatedAt", "lastOrderAt")
COUNTRIES = ("GB", "DE", "US", "FR", "JP")


def query(random: Random, depth: int = 0) -> dict[str, Any]:
    """Return a random query in the list."""
    if depth < 3 and random.random() < 0.3:
        names = random.sample(["must", "filter", "should", "must_not"], random.randint(1, 3))
        return {"bool": {name: [query(random, depth + 1) for _ in range(random.randint(1, 3))] for name in names}}
    queries: list[dict[str, Any]] = [
        {"match_all": {}},
        {"term": {"phoneCountry": random.choice(COUNTRIES)}},
        {"terms": {"totalOrders": random.sample(range(40), 5)}},
        {"range": {random.choice(NUMBERS): {"gte": random.randint(0, 20)}}},
        {"range": {random.choice(DATES): {"lt": f"2025-{random.randint(1, 12):02}-01"}}},
        {"exists": {"field": random.choice(["email", "phone", "fullName", "externalId", "attributes.tags", *DATES])}},
        {"range": {random.choice(DATES): {"gte": random.choice(["now-30d/d", "now-1y", "now/M"])}}},
        {"term": {f"attributes.{random.choice(ATTRIBUTES).path}": random.choice(["GB", "gold", "vip", 100, True])}},
        {
            "range": {
                "attributes.loyalty.points": {"gte": random.randint(0, 2_000), "lt": random.choice([1e9, "1e400"])}
            }
        },
        {"terms": {"id": [f"cons_{n:026}" for n in range(random.randint(0, 50))]}},
        {"constant_score": {"filter": {"term": {"totalOrders": random.choice([0, 1.5, 10**30, -1])}}}},
        {"prefix": {"id": random.choice(["cons_01JBK", "c", ""])}},
    ]
    return random.choice(queries)


def metric(random: Random) -> dict[str, Any]:
    field = {"field": random.choice(NUMBERS)}
    return random.choice(
        [
            *({kind: field} for kind in ("sum", "avg", "min", "max", "stats", "extended_stats", "percentiles")),
            {"cardinality": {"field": random.choice(["id", "audienceIds", *NUMBERS, *DATES])}},
            {"value_count": {"field": random.choice(["id", "phoneCountry", *DATES])}},
            {"max": {"field": random.choice(DATES)}},
            {"percentile_ranks": field | {"values": [0, "12.3456", 1e9], "keyed": random.random() < 0.5}},
            {"percentiles": field | {"percents": [99.9, 0, 50, 100], "keyed": random.random() < 0.5}},
        ]
    )


def buckets(random: Random, level: int) -> dict[str, Any]:
    """Return a random aggregation with buckets. Many are too large, and are refused."""
    year = random.randint(1, 60)
    bounds = {"min": "2024-01-01", "max": f"20{24 + year % 6}-12-31"}
    choice: dict[str, Any] = random.choice(
        [
            {"terms": {"field": "phoneCountry", "size": random.choice([10, 300])}},
            {"terms": {"field": random.choice(["emailDomain", "audienceIds", "totalOrders"]), "size": 1000}},
            {"terms": {"field": f"attributes.{random.choice(ATTRIBUTES).path}", "size": random.choice([10, 500])}},
            {"date_histogram": {"field": random.choice(DATES), "calendar_interval": "day", "hard_bounds": bounds}},
            {"date_histogram": {"field": random.choice(DATES), "calendar_interval": "month"}},
            {"histogram": {"field": "totalOrderValue", "interval": 50, "hard_bounds": {"min": 0, "max": 50 * year}}},
            {"filters": {"filters": {str(n): query(random, 2) for n in range(random.randint(1, 8))}}},
            {"adjacency_matrix": {"filters": {str(n): query(random, 2) for n in range(random.randint(1, 5))}}},
            {"range": {"field": "totalOrders", "ranges": [{"from": n, "to": n + 2} for n in range(year % 50)] or [{}]}},
            {"date_range": {"field": random.choice(DATES), "ranges": [{"from": "now-1y/d"}, {"to": 0}], "keyed": True}},
            {"range": {"field": "totalOrderValue", "keyed": True, "ranges": [{"key": "ü&%", "from": -1, "to": "0.5"}]}},
            {"missing": {"field": random.choice(["phoneCountry", "emailDomain", "audienceIds", "lastOrderAt"])}},
            {"filter": query(random)},
            {"composite": {"size": random.choice([1, 1000]), **_sources(random)}},
        ]
    )
    inner = {f"m{n}": metric(random) for n in range(random.randint(0, 3))}
    if level < 3 and random.random() < 0.4:
        inner["b"] = buckets(random, level + 1)
    return choice | ({"aggs": inner} if inner else {})


def _sources(random: Random) -> dict[str, Any]:
    """Return the sources of a composite, and sometimes a position."""
    order = {"order": random.choice(["asc", "desc"])}
    sources: dict[str, tuple[dict[str, Any], Any]] = {
        "i": ({"terms": {"field": random.choice(["id", "audienceIds"]), **order}}, "cons_5"),
        "o": ({"terms": {"field": "totalOrders", **order}}, random.choice([-1, 3, 2**60])),
        "c": (
            {"terms": {"field": "phoneCountry", "missing_bucket": True, **order}},
            random.choice([None, "GB", "\uffff"]),
        ),
        "d": ({"date_histogram": {"field": "lastOrderAt", "calendar_interval": "1w", **order}}, 1_730_000_000_000),
    }
    names = random.sample(sorted(sources), random.randint(1, 3))
    after = {"after": {name: sources[name][1] for name in names}} if random.random() < 0.5 else {}
    return {"sources": [{name: sources[name][0]} for name in names], **after}


def _page(random: Random) -> dict[str, Any]:
    """Return a size, and sometimes a sort with a position, or a choice of fields."""
    sort: list[tuple[str, Any]] = [
        ("createdAt", random.choice([0, -(2**63), 2**63 - 1, "2025-01-01"])),
        ("lastOrderAt", random.choice([2**63 - 1, 1_730_000_000_000])),
        ("totalOrderValue", random.choice(["0.0001", 1e9, -5])),
        ("phoneCountry", random.choice([None, "GB"])),
        ("audienceIds", random.choice([None, ""])),
    ]
    chosen = [*random.sample(sort, random.randint(0, 3)), ("id", "cons_01JBK")]
    ordered = {"sort": [{name: random.choice(["asc", "desc"])} for name, _ in chosen]}
    after = {"search_after": [position for _, position in chosen]} if random.random() < 0.5 else {}
    return {"size": random.choice([0, 0, 0, 10, 1000]), **random.choice([{}, ordered | after, {"_source": ["id"]}])}


def body(random: Random) -> dict[str, Any]:
    """Return a random body that is allowed."""
    while True:
        drawn = _any_body(random)
        with suppress(Refused):
            bodies.search(drawn, ATTRIBUTES, None)
            return drawn


def _any_body(random: Random) -> dict[str, Any]:
    if random.random() < 0.1:
        return {"size": 0, "query": random.choice([EVERYBODY, query(random)]), "aggs": random.choice(HEAVY)}
    aggs = {f"a{n}": buckets(random, 1) for n in range(random.randint(1, 3))}
    return {"query": query(random), "aggs": aggs, "track_total_hits": random.choice([True, False, 100])} | _page(random)


def measure(bench: Bench) -> None:
    shop, number = bench.shop, int(os.environ.get("QUESTIONS") or 0)
    with shop.database.engine.begin() as connection:
        declared = {"attributes": msgspec.json.encode(ATTRIBUTES).decode(), "environment": shop.large.id}
        connection.execute(sa.text(DECLARE), declared)
    with Connection(shop.service.url) as api:
        request = get(shop.service.url, "/api/v1/consumers?first=20", shop.small.key)
        _lists(api, request, IDLE_SECONDS)
        idle = _lists(api, request, IDLE_SECONDS)
        with _asking(shop) as asked:
            beside = _lists(api, request, SECONDS)
    bench.report.say(
        f"{SECONDS:.0f} s of random questions: {_statuses(asked)}. Lists beside them have a p95 of "
        f"{_p95(beside) / _p95(idle):.2f} × that of an idle index."
    )
    times = {"question": [milliseconds for _, milliseconds in asked], "list, idle": idle, "list, beside": beside}
    rows = [[name, f"{spread(each):.1f}", f"{_p95(each):.1f}", f"{tail(each):.1f}"] for name, each in times.items()]
    bench.report.table(["milliseconds", "p50 (p10–p90)", "p95", "p99"], rows)
    if number:
        with _asking(shop, number) as further:
            pass
        bench.report.say(f"{number:,} further questions without lists beside them: {_statuses(further)}.")
        asked += further
    [node] = shop.database.search.nodes.stats(metric="jvm")["nodes"].values()
    memory, minutes = node["jvm"]["mem"], node["jvm"]["uptime_in_millis"] / 60_000
    bench.report.say(
        f"Heap of OpenSearch: {memory['heap_max_in_bytes'] >> 20} MiB, of which old objects took "
        f"{memory['pools']['old']['peak_used_in_bytes'] >> 20} MiB at most. It has run for {minutes:.0f} minutes."
    )
    failed = sorted({status for status, _ in asked} - {200, 429})
    assert not failed, f"questions were answered {failed}"


def _statuses(asked: Sequence[tuple[int, float]]) -> str:
    counts = Counter(status for status, _ in asked)
    return ", ".join(f"{count:,} × {status}" for status, count in sorted(counts.items()))


@contextmanager
def _asking(shop: Shop, number: int | None = None) -> Iterator[list[tuple[int, float]]]:
    """Ask one question after the other meanwhile, or a number of them; yield a list that has status and milliseconds of
    each at the end.

    They are asked by another process of the lowest priority: an analyst has a processor of their own.
    """
    context = get_context("spawn")
    done, (receiver, sender) = context.Event(), context.Pipe(duplex=False)
    process = context.Process(target=_ask, args=(shop.service.url, shop.large.key, number, done, sender))
    process.start()
    sender.close()
    asked: list[tuple[int, float]] = []
    try:
        yield asked
    finally:
        if number is None:
            done.set()
        asked += receiver.recv()
        process.join()


def _ask(url: str, key: str, number: int | None, done: Event, results: ConnectionOfProcess) -> None:
    os.nice(LOWEST_PRIORITY)
    random, asked = Random(f"questions {number}"), list[tuple[int, float]]()
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=30) as client:
        while len(asked) < number if number else not done.is_set():
            drawn, began = body(random), time.monotonic()
            answer = client.post("/analytics/consumers/_search", json=drawn)
            asked.append((answer.status_code, (time.monotonic() - began) * 1000))
            assert not PERSONAL.search(answer.text), answer.text[:2000]
            assert NAMES.isdisjoint(WORD.findall(answer.text)), answer.text[:2000]
            if answer.status_code not in {200, 429}:
                progress(f"{answer.status_code} {answer.text[:300]} for {json.dumps(drawn)[:2000]}")
            if number and not len(asked) % PROGRESS_QUESTIONS:
                progress(f"{len(asked):,} questions")
    results.send(asked)


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def _lists(api: Connection, request: bytes, seconds: float) -> list[float]:
    until, times = time.monotonic() + seconds, list[float]()
    while time.monotonic() < until:
        began = time.perf_counter()
        head, _ = api.exchange(request)
        assert b" 200 " in head.split(b"\r\n")[0], head
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(PAUSE_SECONDS)
    return times
