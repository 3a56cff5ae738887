"""Attacks of one merchant, and the times of another merchant beside them.

`ATTACK=typos,members` selects attacks, and `ATTACK_SECONDS=12` sets the time of each. Each attack is measured between
two quiet times of half as long, and its ratios are relative to these.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from tests.bench.attacks import ATTACKS, LIMITS, Attack, create_consumers
from tests.bench.bench import Bench
from tests.bench.crowd import create_crowd
from tests.bench.open_loop import Answer
from tests.bench.report import Report, progress
from tests.bench.shop import INDEXING, Shop, key
from tests.bench.victim import RATES, Failures, Merchant, figures, one_list, steady
from tests.service import NO_LIMITS, Service, new_account

ATTACK_SECONDS = float(os.environ.get("ATTACK_SECONDS") or 30)
QUIET_SECONDS = ATTACK_SECONDS / 2
START_SECONDS = 1.0
"""Time between the start of an attack and the first measured request."""
CALM_SECONDS, CALM_MILLISECONDS, CALM_REQUESTS = 60.0, 200, 5
"""The service is calm again after this number of fast lists in a row, without a waiting change."""
VICTIMS_CONSUMERS, ENVIRONMENTS = 5_000, 1_100
DESCRIPTORS = 300
ADDRESS_LIMIT = {"LIMIT_UNAUTHORIZED": "60"}
"""The default, because services of tests have no limit for requests without a valid key."""
LOWEST_PRIORITY = 19
"""The niceness of the attack's process: the client of an attack has processors of its own, and does not slow down the
service's."""
LIMIT = 2
"""The most that the victim's p50 and p95 may grow."""
NOTHING_WAITS = sa.text("SELECT NOT EXISTS (SELECT FROM outbox)")


class FewDescriptors(Service):
    """A service whose API process has few file descriptors, so that few connections can use them up."""

    COMMANDS = Service.COMMANDS | {"api": ["tests.bench.few_descriptors", str(DESCRIPTORS), *Service.COMMANDS["api"]]}


class Measured(NamedTuple):
    """The victim's answers beside an attack, and without it."""

    name: str
    attack: Attack
    quiet: list[Answer]
    attacked: list[Answer]
    outcomes: Counter[str]

    def row(self) -> list[str]:
        cells = []
        for kind in RATES:
            quiet, attacked = figures(self.quiet, kind), figures(self.attacked, kind)
            cells += [f"{quiet:.0f}", f"{attacked:.0f}", f"× {attacked.times(quiet):.1f}"]
        answers = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(self.outcomes.items()))
        return [self.name, *cells, *map(str, Failures.of(self.attacked)), answers]

    @property
    def is_within_limits(self) -> bool:
        ratios = [figures(self.attacked, kind).times(figures(self.quiet, kind)) for kind in RATES]
        failures = Failures.of(self.attacked)
        return max(map(max, ratios)) <= LIMIT and not any(failures)


def measure(bench: Bench) -> None:
    names = [name for name in os.environ.get("ATTACK", "").split(",") if name] or list(ATTACKS)
    if unknown := [name for name in names if name not in ATTACKS]:
        raise ValueError(f"unknown attacks in ATTACK: {', '.join(unknown)}; known attacks are {', '.join(ATTACKS)}")
    measured: list[Measured] = []
    try:
        for each in _measured(bench, names):
            measured.append(each)  # noqa: PERF402 (a failure must not lose the attacks before)
    finally:
        add_tables(bench.report, measured)


def _measured(bench: Bench, names: Sequence[str]) -> Iterator[Measured]:
    # The victim's environment has a higher id than those of the crowd.
    create_crowd(bench.shop.database, ENVIRONMENTS)
    with (
        running(bench.shop, bench.folder / "neighbours") as service,
        new_account(service, limits=NO_LIMITS) as account,
        ProcessPoolExecutor(1, get_context("spawn")) as victims_process,
        ProcessPoolExecutor(1, get_context("spawn"), os.nice, (LOWEST_PRIORITY,)) as attackers_process,
    ):
        create_consumers(account, VICTIMS_CONSUMERS)
        neighbourhood = Neighbourhood(service, Merchant(service.url, key(account)), victims_process, attackers_process)
        neighbourhood.calm()
        neighbourhood.quiet()  # warm-up
        quiet = neighbourhood.quiet()
        for name in names:
            attacked, outcomes = neighbourhood.attacked(name)
            neighbourhood.calm()
            quiet_after = neighbourhood.quiet()
            yield Measured(name, ATTACKS[name], [*quiet, *quiet_after], attacked, outcomes)
            quiet = quiet_after


@contextmanager
def running(shop: Shop, folder: Path) -> Iterator[Service]:
    """Run the whole service instead of the shop's API."""
    folder.mkdir()
    service = FewDescriptors(shop.database, folder, ADDRESS_LIMIT)
    with shop.service.without("api"):
        try:
            for name in (*INDEXING, "api"):
                service.start(name)
            yield service
        finally:
            service.close()


class Neighbourhood(NamedTuple):
    service: Service
    victim: Merchant
    victims_process: Executor
    attackers_process: Executor

    def quiet(self) -> list[Answer]:
        return self.victims_process.submit(steady, self.victim, QUIET_SECONDS).result()

    def attacked(self, name: str) -> tuple[list[Answer], Counter[str]]:
        """Return the victim's answers beside an attack, and the outcomes of the attack."""
        with new_account(self.service, limits=LIMITS) as account:
            seconds = START_SECONDS + ATTACK_SECONDS
            load = ATTACKS[name].prepare(account, Merchant(self.service.url, key(account))).prepared(seconds)
            self.calm()
            progress(f"attack {name}")
            outcomes = self.attackers_process.submit(load.run, seconds)
            time.sleep(START_SECONDS)
            answers = self.victims_process.submit(steady, self.victim, ATTACK_SECONDS)
            return answers.result(), outcomes.result()

    def calm(self) -> None:
        """Wait until the service is calm. After a time limit the API is restarted, which ends all its requests."""
        if self._becomes_calm():
            return
        progress(f"not calm after {CALM_SECONDS:.0f} seconds: restarting the API")
        with self.service.without("api"):
            pass
        if not self._becomes_calm():
            progress("still not calm")

    def _becomes_calm(self) -> bool:
        deadline, fast = time.monotonic() + CALM_SECONDS, 0
        while fast < CALM_REQUESTS and time.monotonic() < deadline:
            fast = fast + 1 if self._is_calm() else 0
            time.sleep(0.05)
        return fast == CALM_REQUESTS

    def _is_calm(self) -> bool:
        with self.service.database.engine.connect() as connection:
            if not connection.execute(NOTHING_WAITS).scalar_one():
                return False
        answer = one_list(self.victim)
        return answer.status == HTTPStatus.OK and answer.milliseconds < CALM_MILLISECONDS


def add_tables(report: Report, measured: Sequence[Measured]) -> None:
    rates = ", ".join(f"{rate:.0f} {kind}" for kind, rate in RATES.items())
    report.say(
        f"One merchant sends {rates} per second, each on a new connection; writes wait until they are searchable. "
        f"Each attack takes {ATTACK_SECONDS:.0f} s, between two quiet times of {QUIET_SECONDS:.0f} s. The API process "
        f"has {DESCRIPTORS} file descriptors. Milliseconds: p50 / p95 quiet, beside the attack, and their ratios."
    )
    times = [f"{kind}{part}" for kind in RATES for part in (", quiet", ", attacked", ", ratios")]
    failures = ["5xx", "unanswered", "refused", "writes over 2 s"]
    report.table(["", *times, *failures, "answers to the attack"], [each.row() for each in measured])
    report.table(["", "attack"], [[each.name, each.attack.about] for each in measured])
    exceeding = [each.name for each in measured if not each.is_within_limits]
    report.say(
        f"Target: p50 and p95 at most × {LIMIT}, no failure, waited writes within 2 s. "
        f"Not met: {', '.join(exceeding) or 'none'}."
    )
