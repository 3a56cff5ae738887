"""Verification by the running service: how fast, and in what memory."""

import time

from infra import verifications
from tests.bench import memory
from tests.bench.bench import Bench
from tests.bench.measuring import spread
from tests.bench.memory import Memory
from tests.bench.shop import Shop

RUNS = 3
PROCESSES = ("api", "worker", "background")
AT = (0.1, 0.5, 1.0)
"""Of a run: when memory is looked at."""
IDLE_SECONDS, LOOK_SECONDS, GIVE_UP_SECONDS = 5.0, 0.1, 600.0


def measure(bench: Bench) -> None:
    shop = bench.shop
    with shop.indexing():
        time.sleep(IDLE_SECONDS)
        rows = [["idle", *(str(memory.of(shop.service, name)) for name in PROCESSES)]]
        speeds = []
        for _ in range(RUNS):
            speed, used = verified(shop)
            speeds.append(speed)
        rows += [[f"verify, {share:.0%}", *map(str, used[share])] for share in AT]
    bench.report.say(f"{shop.consumers:,} consumers; {spread(speeds):,.0f} compared a second, {RUNS} runs.")
    bench.report.say("Memory in MiB, RSS / PSS.")
    bench.report.table(["", *PROCESSES], rows)


def verified(shop: Shop) -> tuple[float, dict[float, list[Memory]]]:
    """Consumers a second of one run, which must find no difference, and memory on the way."""
    with shop.database.engine.begin() as connection:
        number = verifications.request(connection, "verify")
    used: dict[float, list[Memory]] = {}
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while True:
        with shop.database.engine.connect() as connection:
            run = verifications.run(connection, number)
        assert run
        for share in AT:
            if share not in used and (run.is_over or run.compared >= share * shop.consumers):
                used[share] = [memory.of(shop.service, name) for name in PROCESSES]
        if run.is_over:
            break
        assert time.monotonic() < deadline, f"verify is at {run.compared} after {GIVE_UP_SECONDS:.0f} seconds"
        time.sleep(LOOK_SECONDS)
    assert run.agrees, run
    assert run.seconds
    return run.compared / run.seconds, used
