"""Random live questions: none may end OpenSearch, or be an error of the service, and lists beside must stay fast."""

import threading
import time
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

import httpx

from api.analytics import bodies
from api.analytics.fields import Refused
from tests.bench.bench import Bench
from tests.bench.timing import spread, tail
from tests.bench.wire import Connection, get

SECONDS, IDLE_SECONDS, PAUSE_SECONDS = 60.0, 8.0, 0.01
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
        {"exists": {"field": random.choice(["email", "phone", "fullName", *DATES])}},
        {"prefix": {"id": "cons_01JBK"}},
    ]
    return random.choice(queries)


def metric(random: Random) -> dict[str, Any]:
    field = random.choice(NUMBERS)
    kind = random.choice(["sum", "avg", "min", "max", "stats", "extended_stats", "cardinality", "percentiles"])
    return {kind: {"field": random.choice(["id", field]) if kind == "cardinality" else field}}


def buckets(random: Random, level: int) -> dict[str, Any]:
    """Return a random aggregation with buckets. Many are too large, and are refused."""
    year = random.randint(1, 100)
    bounds = {"min": "2024-01-01", "max": f"20{24 + year % 30}-12-31"}
    choice: dict[str, Any] = random.choice(
        [
            {"terms": {"field": "phoneCountry", "size": random.choice([10, 300])}},
            {"terms": {"field": random.choice(["emailDomain", "audienceIds", "totalOrders"]), "size": 1000}},
            {"date_histogram": {"field": random.choice(DATES), "calendar_interval": "day", "hard_bounds": bounds}},
            {"date_histogram": {"field": random.choice(DATES), "calendar_interval": "month"}},
            {"histogram": {"field": "totalOrderValue", "interval": 50, "hard_bounds": {"min": 0, "max": 50 * year}}},
            {"filters": {"filters": {str(n): query(random, 2) for n in range(random.randint(1, 20))}}},
            {"adjacency_matrix": {"filters": {str(n): query(random, 2) for n in range(random.randint(1, 10))}}},
            {"range": {"field": "totalOrders", "ranges": [{"from": n, "to": n + 2} for n in range(year % 50)] or [{}]}},
            {
                "composite": {
                    "size": 1000,
                    "sources": [{"a": {"terms": {"field": random.choice(["id", "totalOrders"])}}}],
                }
            },
        ]
    )
    inner = {f"m{n}": metric(random) for n in range(random.randint(0, 4))}
    if level < 3 and random.random() < 0.6:
        inner["b"] = buckets(random, level + 1)
    return choice | ({"aggs": inner} if inner else {})


def body(random: Random) -> dict[str, Any]:
    """Return a random body that is allowed."""
    while True:
        drawn = _any_body(random)
        with suppress(Refused):
            bodies.search(drawn, [], None)
            return drawn


def _any_body(random: Random) -> dict[str, Any]:
    aggs = {f"a{n}": buckets(random, 1) for n in range(random.randint(1, 4))}
    return {"size": random.choice([0, 0, 10, 1000]), "query": query(random), "aggs": aggs}


def measure(bench: Bench) -> None:
    shop = bench.shop
    statuses, times, done = Counter[int](), list[float](), threading.Event()
    headers = {"Authorization": f"Bearer {shop.large.key}"}

    def ask() -> None:
        random = Random("questions")
        with httpx.Client(base_url=f"{shop.service.url}/api/v1", headers=headers, timeout=30) as client:
            while not done.is_set():
                began = time.monotonic()
                statuses[client.post("/analytics/consumers/_search", json=body(random)).status_code] += 1
                times.append((time.monotonic() - began) * 1000)

    with Connection(shop.service.url) as api:
        request = get(shop.service.url, "/api/v1/consumers?first=20", shop.small.key)
        _lists(api, request, IDLE_SECONDS)
        idle = _lists(api, request, IDLE_SECONDS)
        asking = threading.Thread(target=ask)
        asking.start()
        beside = _lists(api, request, SECONDS)
        done.set()
        asking.join()
    counts = ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))
    bench.report.say(f"{shop.consumers:,} consumers, {SECONDS:.0f} s of random questions: {counts}.")
    rows = [[name, f"{spread(each):.1f}", f"{tail(each):.1f}"] for name, each in
            (("question", times), ("list, idle", idle), ("list, beside", beside))]  # fmt: skip
    bench.report.table(["milliseconds", "p50 (p10–p90)", "p99"], rows)


def _lists(api: Connection, request: bytes, seconds: float) -> list[float]:
    until, times = time.monotonic() + seconds, list[float]()
    while time.monotonic() < until:
        began = time.perf_counter()
        head, _ = api.exchange(request)
        assert b" 200 " in head.split(b"\r\n")[0], head
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(PAUSE_SECONDS)
    return times
