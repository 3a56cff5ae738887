"""Time until a write is searchable, beside other writes at a fixed rate."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

import psycopg

from tests.bench import wire
from tests.bench.bench import Bench
from tests.bench.clients import HTTPClient, run
from tests.bench.shop import key
from tests.bench.timing import spread, tail
from tests.bench.wire import Connection
from tests.bench.writes import Writer, next_number, person

RATES = (1, 50, 200, 500)
"""Background writes per second."""
SECONDS, PAUSE_SECONDS = 6, 0.03
"""Duration of each rate, and pause between measured writes, which must not be in step with the drain."""
ASK_SECONDS = 0.002
"""Pause between questions whether a consumer is found."""
TARGETS = {("waited", 200): "p50 ≤ 40, p99 ≤ 120", ("SQL", 200): "p50 ≤ 60"}
WAIT = "Prefer: wait=10\r\n"


class Prober(NamedTuple):
    """Measures the milliseconds until a new consumer is found."""

    api: Connection
    writer: Writer
    sql: psycopg.Connection[Any]

    def waited(self) -> float:
        """Return the time from a request with `Prefer: wait` to the response."""
        started = time.perf_counter()
        head = self._post(WAIT)
        assert wire.header(head, "index-state") == "searchable", head
        return (time.perf_counter() - started) * 1000

    def unwaited(self) -> float:
        """Return the time from the response of a POST to a list that contains the consumer."""
        token = wire.header(self._post(""), "consistency-token")
        assert token
        started = time.perf_counter()
        request = wire.get(
            self.writer.url, "/api/v1/consumers?first=1", self.writer.key, f"Consistency-Token: {token}\r\n{WAIT}"
        )
        head, _ = self.api.exchange(request)
        assert wire.header(head, "index-stale") is None, head
        return (time.perf_counter() - started) * 1000

    def by_sql(self) -> float:
        """Return the time from the commit of an INSERT to a list that contains the consumer."""
        number = next_number()
        run(self.sql, self.writer.insert(number))
        started = time.perf_counter()
        path = f"/api/v1/consumers/search?email={quote(person(number)['email'])}"
        request = wire.get(self.writer.url, path, self.writer.key)
        while b"cons_" not in self.api.ask(request):
            time.sleep(ASK_SECONDS)
        return (time.perf_counter() - started) * 1000

    def _post(self, headers: str) -> bytes:
        request = wire.write(self.writer.url, self.writer.key, "POST", "/consumers", person(next_number()), headers)
        return self.api.exchange(request)[0]


def measure(bench: Bench) -> None:
    shop, rows = bench.shop, []
    with (
        shop.indexing(),
        shop.account() as account,
        Connection(shop.service.url) as api,
        psycopg.connect(shop.address, autocommit=True) as sql,
    ):
        writer = Writer(shop.service.url, key(account), account.live_environment, ())
        prober = Prober(api, writer, sql)
        beside = partial(HTTPClient, writer.url, writer.post)
        for rate in RATES:
            for name, probe in (("waited", prober.waited), ("unwaited", prober.unwaited), ("SQL", prober.by_sql)):
                probe()
                with bench.clients.paced(beside, rate, SECONDS) as paced:
                    times = probed(probe)
                figures = [f"{spread(times):.0f}", f"{tail(times):.0f}", f"{max(times):.0f}"]
                rows.append([name, str(rate), f"{paced[0].rate:.0f}", *figures, TARGETS.get((name, rate), "")])
            shop.settled()
    bench.report.say(
        f"{shop.consumers:,} stored consumers; milliseconds. Waited: from a POST with `Prefer: wait` to its response. "
        "Unwaited: from the response of a POST to a list that contains the consumer. SQL: the same for an INSERT."
    )
    head = ["", "background writes/s", "reached", "p50 (p10–p90)", "p99", "max", "target"]
    bench.report.table(head, rows)


def probed(probe: Callable[[], float]) -> list[float]:
    until, times = time.monotonic() + SECONDS, []
    while time.monotonic() < until:
        times.append(probe())
        time.sleep(PAUSE_SECONDS)
    return times
