"""What the API adds to a search: its answers over HTTP beside the identical `_search`, sent straight to OpenSearch.

`python -m tests.bench.reads` prints Markdown tables; `SIZE=100000` for fewer consumers than a million, `BENCH_DIR=…`
keeps them for the next run, `ONLY=…` measures only cases whose names contain that.
"""
# ruff: noqa: T201 (tables are what it is for)

import os
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra import documents
from tests.bench.cases import Case, Question, cases
from tests.bench.shop import SIZE, SMALL, Shop, opened
from tests.bench.wire import Connection

TURNS, CLIENTS = 60, 16
SPELLS, SPELL_SECONDS = 3, 1.5
TICKS = os.sysconf("SC_CLK_TCK")


def milliseconds(connection: Connection, requests: Sequence[bytes]) -> float:
    started = time.perf_counter()
    for request in requests:
        connection.ask(request)
    return (time.perf_counter() - started) * 1000


def alone(case: Case, raw: Connection, api: Connection) -> str:
    """One client, by turns."""
    ways: list[tuple[Connection, list[Sequence[bytes]]]] = [
        (raw, [question.raw for question in case.questions]),
        (api, [[question.api] for question in case.questions]),
    ]
    times: list[list[float]] = [[], []]
    for turn in range(-len(case.questions), TURNS):
        for way in (0, 1) if turn % 2 else (1, 0):
            connection, requests = ways[way]
            taken = milliseconds(connection, requests[turn % len(requests)])
            if turn >= 0:
                times[way].append(taken)
    raw_ms, api_ms = map(_spread, times)
    added = [api - raw for raw, api in zip(raw_ms[:2], api_ms[:2], strict=True)]
    figures = " | ".join(f"{figure:.1f}" for figure in (*raw_ms, *api_ms, *added))
    return f"| {case.name} | {figures} | {api_ms[0] / raw_ms[0]:.2f} |"


def _spread(times: list[float]) -> tuple[float, float, float]:
    """The median, p10, which hardly knows of whatever else runs here, and p95."""
    parts = statistics.quantiles(times, n=20)
    return statistics.median(times), parts[1], parts[-1]


class Rate:
    """Answers a second, and what processes use for one."""

    def __init__(self, url: str, requests: Sequence[Sequence[bytes]], pids: Sequence[int]) -> None:
        self._url, self._requests, self._pids = url, requests, pids
        self.rates: list[float] = []
        self._done, self._seconds = 0, 0.0

    def spell(self) -> None:
        """So many clients at once for a moment."""
        over, before = threading.Event(), _cpu_seconds(self._pids)
        started = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            counts = [pool.submit(self._client, number, over) for number in range(CLIENTS)]
            over.wait(SPELL_SECONDS)
            over.set()
            done = sum(count.result() for count in counts)
        self.rates.append(done / (time.perf_counter() - started))
        self._done += done
        self._seconds += _cpu_seconds(self._pids) - before

    def _client(self, number: int, over: threading.Event) -> int:
        done = 0
        with Connection(self._url) as connection:
            while not over.is_set():
                for request in self._requests[(number + done) % len(self._requests)]:
                    connection.ask(request)
                done += 1
        return done

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    @property
    def cpu_ms(self) -> float:
        return self._seconds * 1000 / self._done


def _cpu_seconds(pids: Sequence[int]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / TICKS


def together(case: Case, shop: Shop) -> str:
    """Many clients, by turns."""
    questions: Sequence[Question] = case.questions
    index, service = [shop.servers.opensearch.pid], [shop.service.pid("api"), *shop.service.children("api")]
    raw = Rate(shop.database.settings.opensearch_url, [question.raw for question in questions], index)
    api = Rate(shop.service.url, [[question.api] for question in questions], service)
    for _ in range(SPELLS):
        raw.spell()
        api.spell()
    spread = " | ".join(f"{way.median:.0f} ({min(way.rates):.0f}…{max(way.rates):.0f})" for way in (raw, api))
    return f"| {case.name} | {spread} | {api.median / raw.median:.2f} | {raw.cpu_ms:.2f} | {api.cpu_ms:.2f} |"


def describe(shop: Shop) -> None:
    figures = shop.database.search.indices.stats(index=documents.index_name(shop.prefix, 1))["_all"]["primaries"]
    each = figures["store"]["size_in_bytes"] / figures["docs"]["count"]
    print(f"{os.cpu_count()} cores; {SIZE:,} consumers in one environment, {SMALL:,} in another; ", end="")
    print(f"{figures['segments']['count']} segments; {each:.0f} bytes of index a consumer\n")


def main() -> None:
    with opened() as shop:
        describe(shop)
        wanted = [case for case in cases(shop) if os.environ.get("ONLY", "") in case.name]
        print(f"One client, milliseconds; load {os.getloadavg()[0]:.1f}\n")
        print("| | raw | p10 | p95 | API | p10 | p95 | added | at p10 | ratio |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        with Connection(shop.database.settings.opensearch_url) as raw, Connection(shop.service.url) as api:
            for case in wanted:
                print(alone(case, raw, api), flush=True)
        print(f"\n{CLIENTS} clients, answers a second; load {os.getloadavg()[0]:.1f}\n")
        print("| | raw | API | ratio | CPU ms of OpenSearch, raw | CPU ms of the API |\n|---|---|---|---|---|---|")
        for case in wanted:
            if case.busy:
                print(together(case, shop), flush=True)
        print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
