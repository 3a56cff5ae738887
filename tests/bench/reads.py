"""Overhead of the API on a search.

Compared with the identical `_search` sent directly to OpenSearch, and with PostgreSQL alone on the same rows, if
PostgreSQL can answer the question.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psycopg

from tests.bench import trigrams
from tests.bench.bench import Bench
from tests.bench.cases import Case, cases
from tests.bench.clients import Clients, HTTPClient, Open, SQLClient, run
from tests.bench.shop import SMALL
from tests.bench.timing import by_turns, spread
from tests.bench.wire import Connection

TURNS, IN_A_ROW, CLIENTS = 10, 5, 16
SPELLS, SPELL_SECONDS = 3, 0.5
TICKS = os.sysconf("SC_CLK_TCK")
NONE = "–"

Item = TypeVar("Item")


def measure(bench: Bench) -> None:
    shop, report = bench.shop, bench.report
    chosen = [case for case in cases(shop) if os.environ.get("CASES", "") in case.name]
    report.say(
        f"{shop.size:,} consumers in one environment, {SMALL:,} in another. Raw: the identical `_search`, the same "
        "response bytes, over the same client. PostgreSQL: the same rows, an index for each sort, `pg_trgm` for "
        "searches."
    )
    with trigrams.filled(shop, bench.servers) as address:
        report.say(f"One client, milliseconds: median (p10–p90) of {TURNS} turns of {IN_A_ROW} in a row.")
        with (
            Connection(shop.database.settings.opensearch_url) as raw,
            Connection(shop.service.url) as api,
            psycopg.connect(address, autocommit=True) as sql,
        ):
            rows = [alone(case, raw, api, sql) for case in chosen]
        report.table(["", "raw `_search`", "API", "added", "added at p10", "ratio", "PostgreSQL alone"], rows)
        report.say(f"{CLIENTS} clients, responses per second: median (min–max) of {SPELLS} runs.")
        rows = [Many(bench, case, address).row(bench.clients) for case in chosen if case.busy]
        head = ["", "raw `_search`", "API", "ratio", "PostgreSQL alone", "CPU ms: OpenSearch raw", "OpenSearch", "API"]
        report.table(head, rows)


def alone(case: Case, raw: Connection, api: Connection, sql: psycopg.Connection[Any]) -> list[str]:
    """Measure a case with one client, in alternation."""
    times = ask_by_turns(case, raw, api, sql, TURNS, IN_A_ROW)
    spreads = {name: spread(each) for name, each in times.items()}
    before, after = spreads["raw"], spreads["api"]
    added = [f"{after.median - before.median:.1f}", f"{after.low - before.low:.1f}"]
    beside = f"{spreads['sql']:.1f}" if "sql" in spreads else NONE
    return [case.name, f"{before:.1f}", f"{after:.1f}", *added, f"{after.median / before.median:.2f}", beside]


def ask_by_turns(
    case: Case, raw: Connection, api: Connection, sql: psycopg.Connection[Any] | None, turns: int, in_a_row: int = 0
) -> dict[str, list[float]]:
    """Return the milliseconds of a case by way: raw, API, and SQL if possible."""
    questions = case.questions

    def ask_raw(turn: int) -> None:
        for request in nth(turn, [question.raw for question in questions]):
            raw.ask(request)

    ways = {"raw": ask_raw, "api": lambda turn: api.ask(nth(turn, questions).api)}
    statements = [question.sql for question in questions if question.sql]
    if sql and statements:
        ways["sql"] = lambda turn: run(sql, nth(turn, statements))
    warm_up = -(-max(len(questions), 3) // (in_a_row + 1))
    return by_turns(ways, turns, warm_up=warm_up, in_a_row=in_a_row)


def nth(number: int, items: Sequence[Item]) -> Item:
    """Return the item for a turn."""
    return items[number % len(items)]


class Used(NamedTuple):
    """Processor time in seconds."""

    search: float
    api: float


class Many:
    """A case measured with many clients, in alternation."""

    def __init__(self, bench: Bench, case: Case, address: str) -> None:
        self._case, self._shop = case, bench.shop
        self._index = [bench.servers.opensearch.pid]
        statements = [question.sql for question in case.questions if question.sql]
        raw = [question.raw for question in case.questions]
        self._ways: dict[str, Open] = {
            "raw": partial(HTTPClient, self._shop.database.settings.opensearch_url, partial(nth, items=raw)),
            "api": partial(HTTPClient, self._shop.service.url, partial(nth, items=[[q.api] for q in case.questions])),
        }
        if statements:
            self._ways["sql"] = partial(SQLClient, address, partial(nth, items=statements))

    def row(self, clients: Clients) -> list[str]:
        rates: dict[str, list[float]] = {name: [] for name in self._ways}
        used: dict[str, list[Used]] = {name: [] for name in self._ways}
        for _ in range(SPELLS):
            for name, way in self._ways.items():
                before = self._used()
                rates[name].append(clients.busy(way, CLIENTS, SPELL_SECONDS))
                used[name].append(Used(*(after - one for after, one in zip(self._used(), before, strict=True))))
        spreads = {name: spread(each) for name, each in rates.items()}
        each = {name: per_answer(rates[name], used[name]) for name in self._ways}
        ratio = f"{spreads['api'].median / spreads['raw'].median:.2f}"
        beside = f"{spreads['sql']:.0f}" if "sql" in spreads else NONE
        cpu = [f"{figure:.2f}" for figure in (each["raw"].search, *each["api"])]
        return [self._case.name, f"{spreads['raw']:.0f}", f"{spreads['api']:.0f}", ratio, beside, *cpu]

    def _used(self) -> Used:
        api = [self._shop.service.pid("api"), *self._shop.service.children("api")]
        return Used(_cpu_seconds(self._index), _cpu_seconds(api))


def per_answer(rates: Sequence[float], used: Sequence[Used]) -> Used:
    """Return the milliseconds of processor time per response."""
    answers = sum(rates) * SPELL_SECONDS
    return Used(*(sum(part) * 1000 / answers for part in zip(*used, strict=True)))


def _cpu_seconds(pids: Sequence[int]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / TICKS
