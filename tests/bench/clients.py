"""Many clients in several processes, so that the server is measured and not Python's single thread."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple, Protocol

import psycopg

from tests.bench.wire import Connection

PROCESSES = 4
START_SECONDS = 0.1
"""Time between the call and the first request, so that all processes start together."""
OFTEN = 10**6
"""Size of the range of numbers reserved for a client."""


class Client(Protocol):
    def ask(self, number: int) -> object: ...

    def close(self) -> None: ...


Open = Callable[[], Client]
"""Must be picklable, because the function is called in the client's process."""


class HTTPClient:
    """A client sending the requests made from each number."""

    def __init__(self, url: str, make: Callable[[int], Sequence[bytes]]) -> None:
        self._connection, self._make = Connection(url), make

    def ask(self, number: int) -> None:
        for request in self._make(number):
            self._connection.ask(request)

    def close(self) -> None:
        self._connection.close()


class SQLClient:
    """A client running the statement made from each number in a separate transaction."""

    def __init__(self, address: str, make: Callable[[int], tuple[str, Sequence[object]]]) -> None:
        self._connection, self._make = psycopg.connect(address, autocommit=True), make

    def ask(self, number: int) -> None:
        run(self._connection, self._make(number))

    def close(self) -> None:
        self._connection.close()


class Paced(NamedTuple):
    """The result of an open loop."""

    sent: int
    seconds: float
    """Time until the last response."""

    @property
    def rate(self) -> float:
        return self.sent / self.seconds


def run(connection: psycopg.Connection[Any], statement: tuple[str, Sequence[object]]) -> None:
    """Run a statement, and fetch all rows."""
    text, values = statement
    if (cursor := connection.execute(text.encode(), values)).description:
        cursor.fetchall()


class Clients:
    """The client processes, reused by all measurements."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._numbers = time.time_ns() // 1000 * OFTEN

    def busy(self, start: Open, clients: int, seconds: float) -> float:
        """Return responses per second, with each client sending the next request after a response."""
        begin = time.time() + START_SECONDS
        parts = [number for number in (clients // PROCESSES, clients % PROCESSES) if number]
        shares = [parts[0]] * PROCESSES if clients >= PROCESSES else [1] * clients
        assert sum(shares) == clients
        running = [self._pool.submit(_busy, start, self._range(share), begin, seconds) for share in shares]
        return sum(part.result() for part in running)

    @contextmanager
    def paced(self, start: Open, rate: float, seconds: float) -> Iterator[list[Paced]]:
        """Send requests at a rate in the background; yields a list that has the result when the context ends.

        Requests are sent when due, even if responses are late, as far as 32 clients allow.
        """
        outcome: list[Paced] = []
        begin, each = time.time() + START_SECONDS, rate / PROCESSES
        running = [
            self._pool.submit(_paced, start, self._range(8), begin + number / rate, each, seconds)
            for number in range(PROCESSES if rate else 0)
        ]
        yield outcome
        done = [part.result() for part in running]
        if done:
            outcome.append(Paced(sum(part.sent for part in done), max(part.seconds for part in done)))

    def _range(self, clients: int) -> list[int]:
        first = self._numbers
        self._numbers += clients * OFTEN
        return [first + number * OFTEN for number in range(clients)]


@contextmanager
def open_clients() -> Iterator[Clients]:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        list(pool.map(_warm, range(PROCESSES * 4)))
        yield Clients(pool)


def _warm(_: int) -> None:
    time.sleep(0.05)


def _busy(start: Open, numbers: Sequence[int], begin: float, seconds: float) -> float:
    with ThreadPoolExecutor(len(numbers)) as pool:
        return sum(pool.map(partial(_go_on, start, begin, seconds), numbers))


def _go_on(start: Open, begin: float, seconds: float, number: int) -> float:
    client = start()
    time.sleep(max(0.0, begin - time.time()))
    started, done = time.perf_counter(), 0
    while (taken := time.perf_counter() - started) < seconds:
        client.ask(number + done)
        done += 1
    client.close()
    return done / taken


def _paced(start: Open, numbers: Sequence[int], begin: float, rate: float, seconds: float) -> Paced:
    clients = [start() for _ in numbers]
    due = iter(range(int(rate * seconds)))

    def work(client: Client, first: int) -> int:
        sent = 0
        for number in due:
            time.sleep(max(0.0, begin + number / rate - time.time()))
            client.ask(first + sent)
            sent += 1
        client.close()
        return sent

    with ThreadPoolExecutor(len(clients)) as pool:
        sent = sum(pool.map(work, clients, numbers))
    return Paced(sent, max(time.time() - begin, seconds))
