"""A rebuild and verifications by the running service: how fast, in what memory, and what searches notice of them."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from infra.operations import rebuild as rebuilds
from infra.operations.verify import find_run, request_run
from tests.bench import memory
from tests.bench.bench import Bench
from tests.bench.cases import Case, cases
from tests.bench.indexing import forget
from tests.bench.measuring import spread
from tests.bench.memory import Memory
from tests.bench.shop import Shop
from tests.bench.wire import Connection

RUNS = 3
"""Verifications with nothing beside them."""
PROCESSES = ("api", "worker", "background")
AT = (0.1, 0.5, 1.0)
"""Of a piece of work: when memory is looked at."""
ASKED = ("list createdAt desc", "list totalOrderValue desc", "search= a name", "q= a name", "q= two words")
PAUSE_SECONDS = 0.01
"""Between searches."""
IDLE_SECONDS, LOOK_SECONDS, GIVE_UP_SECONDS = 8.0, 0.25, 900.0

Times = dict[str, list[float]]
"""Milliseconds of each search."""


class Progress(NamedTuple):
    share: float
    is_over: bool


class Seen(NamedTuple):
    """What a piece of work did to others."""

    used: dict[float, list[Memory]]
    times: Times


def measure(bench: Bench) -> None:
    shop, report = bench.shop, bench.report
    asked = [case for case in cases(shop) if case.name in ASKED]
    with shop.indexing(), Connection(shop.service.url) as api:
        alongside(shop, api, asked, idling())  # until all are warm
        idle = alongside(shop, api, asked, idling())
        rebuilding = alongside(shop, api, asked, rebuild(shop))
        forget(shop.database.engine, shop.database.settings)
        verifying = alongside(shop, api, asked, verify(shop))
        speeds = [verified(shop) for _ in range(RUNS)]
    report.say(f"Verification with nothing beside it: {spread(speeds):,.0f} consumers a second, {RUNS} runs.")
    report.say(f"Searches, milliseconds: one client that pauses {PAUSE_SECONDS * 1000:.0f} ms after each.")
    rows = [beside(name, *(seen.times[name] for seen in (idle, rebuilding, verifying))) for name in idle.times]
    report.table(["", "usually", "during a rebuild", "ratio", "during a verification", "ratio"], rows)
    report.say("Memory in MiB, RSS / PSS.")
    works = {"nothing": idle, "rebuild": rebuilding, "verification": verifying}
    rows = [
        [f"{name}, {share:.0%}", *map(str, seen.used[share])] for name, seen in works.items() for share in seen.used
    ]
    report.table(["", *PROCESSES], rows)


def beside(name: str, usually: Sequence[float], *others: Sequence[float]) -> list[str]:
    """The times of one search."""
    before, cells = spread(usually), []
    for other in map(spread, others):
        cells += [f"{other:.1f}", f"{other.median / before.median:.2f}"]
    return [name, f"{before:.1f}", *cells]


def alongside(shop: Shop, api: Connection, asked: Sequence[Case], progress: Callable[[], Progress]) -> Seen:
    """Search until a piece of work is over, and look at the memory on its way."""
    seen = Seen({}, {case.name: [] for case in asked})
    deadline, look = time.monotonic() + GIVE_UP_SECONDS, 0.0
    for turn in itertools.count():
        for case in asked:
            started = time.perf_counter()
            api.ask(case.questions[turn % len(case.questions)].api)
            seen.times[case.name].append((time.perf_counter() - started) * 1000)
            time.sleep(PAUSE_SECONDS)
        if time.monotonic() < look:
            continue
        look = time.monotonic() + LOOK_SECONDS
        now = progress()
        for share in AT:
            if share not in seen.used and (now.is_over or now.share >= share):
                seen.used[share] = [memory.of(shop.service, name) for name in PROCESSES]
        if now.is_over:
            return seen
        assert time.monotonic() < deadline, f"at {now.share:.0%} after {GIVE_UP_SECONDS:.0f} seconds"
    raise AssertionError


def idling() -> Callable[[], Progress]:
    over = time.monotonic() + IDLE_SECONDS
    return lambda: Progress(0, time.monotonic() >= over)


def rebuild(shop: Shop) -> Callable[[], Progress]:
    """Ask for one."""
    with shop.database.engine.begin() as connection:
        number = rebuilds.start(connection, shop.database.settings).id

    def progress() -> Progress:
        with shop.database.engine.connect() as connection:
            found = rebuilds.by_id(connection, number)
        assert found.is_running or found.state == "live", found.error
        return Progress(found.documents / shop.consumers, not found.is_running)

    return progress


def verify(shop: Shop) -> Callable[[], Progress]:
    """Ask for one."""
    with shop.database.engine.begin() as connection:
        number = request_run(connection, "verify")
    return lambda: _compared(shop, number)[0]


def verified(shop: Shop) -> float:
    """Consumers a second of one run."""
    with shop.database.engine.begin() as connection:
        number = request_run(connection, "verify")
    while not (found := _compared(shop, number))[0].is_over:
        time.sleep(LOOK_SECONDS)
    return found[1]


def _compared(shop: Shop, number: int) -> tuple[Progress, float]:
    """How far a run is, and how many consumers a second; it must find no difference."""
    with shop.database.engine.connect() as connection:
        run = find_run(connection, number)
    assert run
    assert not run.is_over or run.agrees, run
    return Progress(run.compared / shop.consumers, run.is_over), run.compared / (run.seconds or 1)
