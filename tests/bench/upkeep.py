"""Rebuild and verifications by the running service: speed, memory, and effect on search times."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from infra.operations import rebuild as rebuilds
from infra.operations.verify import find_run, request_run
from tests.bench import memory
from tests.bench.bench import Bench
from tests.bench.cases import Case, cases
from tests.bench.indexing import drop_previous
from tests.bench.memory import Memory
from tests.bench.shop import Shop
from tests.bench.timing import spread
from tests.bench.wire import Connection

RUNS = 3
"""Number of verifications without other load."""
PROCESSES = ("api", "worker", "background")
SHARES = (0.1, 0.5, 1.0)
"""Shares of the work at which memory is measured."""
CASES = ("list createdAt desc", "list totalOrderValue desc", "search= a name", "q= a name", "q= two words")
PAUSE_SECONDS = 0.01
"""Pause between searches."""
IDLE_SECONDS, POLL_SECONDS, GIVE_UP_SECONDS = 8.0, 0.25, 900.0

Times = dict[str, list[float]]
"""Milliseconds by search."""


class Progress(NamedTuple):
    share: float
    is_over: bool


class Observed(NamedTuple):
    """Memory and search times during a piece of work."""

    used: dict[float, list[Memory]]
    times: Times


def measure(bench: Bench) -> None:
    shop, report = bench.shop, bench.report
    searches = [case for case in cases(shop) if case.name in CASES]
    with shop.indexing(), Connection(shop.service.url) as api:
        alongside(shop, api, searches, idling())  # warm-up
        idle = alongside(shop, api, searches, idling())
        rebuilding = alongside(shop, api, searches, rebuild(shop))
        drop_previous(shop.database.engine, shop.database.settings)
        verifying = alongside(shop, api, searches, verify(shop))
        speeds = [verify_speed(shop) for _ in range(RUNS)]
    report.say(f"Verification without other load: {spread(speeds):,.0f} consumers per second, {RUNS} runs.")
    report.say(f"Searches, milliseconds: one client with pauses of {PAUSE_SECONDS * 1000:.0f} ms.")
    rows = [beside(name, *(observed.times[name] for observed in (idle, rebuilding, verifying))) for name in idle.times]
    report.table(["", "idle", "during a rebuild", "ratio", "during a verification", "ratio"], rows)
    report.say("Memory in MiB, RSS / PSS.")
    works = {"nothing": idle, "rebuild": rebuilding, "verification": verifying}
    rows = [
        [f"{name}, {share:.0%}", *map(str, observed.used[share])]
        for name, observed in works.items()
        for share in observed.used
    ]
    report.table(["", *PROCESSES], rows)


def beside(name: str, usually: Sequence[float], *others: Sequence[float]) -> list[str]:
    """Return the report's row of a search."""
    before, cells = spread(usually), []
    for other in map(spread, others):
        cells += [f"{other:.1f}", f"{other.median / before.median:.2f}"]
    return [name, f"{before:.1f}", *cells]


def alongside(shop: Shop, api: Connection, searches: Sequence[Case], progress: Callable[[], Progress]) -> Observed:
    """Search until a piece of work is over, and measure memory meanwhile."""
    observed = Observed({}, {case.name: [] for case in searches})
    deadline, look = time.monotonic() + GIVE_UP_SECONDS, 0.0
    for turn in itertools.count():
        for case in searches:
            started = time.perf_counter()
            api.ask(case.questions[turn % len(case.questions)].api)
            observed.times[case.name].append((time.perf_counter() - started) * 1000)
            time.sleep(PAUSE_SECONDS)
        if time.monotonic() < look:
            continue
        look = time.monotonic() + POLL_SECONDS
        now = progress()
        for share in SHARES:
            if share not in observed.used and (now.is_over or now.share >= share):
                observed.used[share] = [memory.of(shop.service, name) for name in PROCESSES]
        if now.is_over:
            return observed
        assert time.monotonic() < deadline, f"at {now.share:.0%} after {GIVE_UP_SECONDS:.0f} seconds"
    raise AssertionError


def idling() -> Callable[[], Progress]:
    over = time.monotonic() + IDLE_SECONDS
    return lambda: Progress(0, time.monotonic() >= over)


def rebuild(shop: Shop) -> Callable[[], Progress]:
    """Request a rebuild, and return a function for its progress."""
    with shop.database.engine.begin() as connection:
        number = rebuilds.start(connection, shop.database.settings).id

    def progress() -> Progress:
        with shop.database.engine.connect() as connection:
            generation = rebuilds.by_id(connection, number)
        assert generation.is_running or generation.state == "live", generation.error
        return Progress(generation.documents / shop.consumers, not generation.is_running)

    return progress


def verify(shop: Shop) -> Callable[[], Progress]:
    """Request a rebuild, and return a function for its progress."""
    with shop.database.engine.begin() as connection:
        number = request_run(connection, "verify")
    return lambda: _compared(shop, number)[0]


def verify_speed(shop: Shop) -> float:
    """Run a verification, and return consumers per second."""
    with shop.database.engine.begin() as connection:
        number = request_run(connection, "verify")
    while not (progress := _compared(shop, number))[0].is_over:
        time.sleep(POLL_SECONDS)
    return progress[1]


def _compared(shop: Shop, number: int) -> tuple[Progress, float]:
    """Return progress and consumers per second of a run, which must find no difference."""
    with shop.database.engine.connect() as connection:
        run = find_run(connection, number)
    assert run
    assert not run.is_over or run.agrees, run
    return Progress(run.compared / shop.consumers, run.is_over), run.compared / (run.seconds or 1)
