"""The budget of an environment: how much its requests may use at a time, so that no environment starves the others.

Each kind of work has a gate with a number of places per environment. A request without a free place waits in memory:
without a connection, and without delaying other environments. The queue is short, and a request that waits too long
gets a 429. A gate is a counter in memory, so a free place costs microseconds. Each process has gates of its own.
"""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from http import HTTPStatus

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.auth import Requester
from api.error_codes import ErrorCode
from api.errors import TOO_MANY_REQUESTS, Problem

RETRY_AFTER_SECONDS = 1
QUESTIONS = 2
"""Live questions of all environments that run at a time: they may keep a processor of OpenSearch busy for seconds."""
QUESTION_PAUSE, LONGEST_QUESTION_PAUSE_SECONDS = 3, 4.0
"""Pause after a live question, as a multiple of the time it took."""
QUESTION_WAIT_SECONDS = 5.0
"""How long a live question waits for a place: longer than the pause, so that a client that asks one question after the
other is never refused."""
SEARCH_WAIT_SECONDS = 2.0
"""How long a search waits for a place."""
PAUSE = 2
"""Pause after an expensive search, as a multiple of the time it took."""
WRITE_PAUSE, LONGEST_WRITE_PAUSE_SECONDS = 5, 0.1
"""Pause after a write for which others of the same row wait, as a multiple of the time it took."""
BATCH_PAUSE, LONGEST_BATCH_PAUSE_SECONDS = 1, 1.0
"""The same after a batch, if further batches of the environment wait."""
ACTIVE_SECONDS = 1.0
"""How long an environment counts as active after a search or a write."""
WRITE_WAIT_SECONDS = 5.0
"""How long a request waits for a database connection, or for a concurrent write of the same row."""
BATCH_WAIT_SECONDS = 30.0
"""How long a batch waits for the batches before it."""


class _Line(msgspec.Struct, eq=False):
    """The requests with the same key: how many run, and the queue."""

    running: int = 0
    waiting: deque[asyncio.Future[None]] = msgspec.field(default_factory=deque)


class Gate:
    """Admits a number of requests with the same key at a time. Further requests wait in the order of arrival."""

    def __init__(self, places: int, wait_seconds: float, noun: str) -> None:
        """Open the gate.

        Args:
            places: requests with the same key that work at a time.
            wait_seconds: how long a request waits for a place.
            noun: the work in messages, in the plural, such as `searches of an environment`.
        """
        self._places, self._wait_seconds, self._noun = places, wait_seconds, noun
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def admit(self, key: str) -> AsyncIterator[None]:
        """Hold a place while the context is open.

        Raises:
            Problem: as `enter`.
        """
        await self.enter(key)
        try:
            yield
        finally:
            self.leave(key)

    async def enter(self, key: str) -> None:
        """Take a place, to be given back by `leave`.

        Raises:
            Problem: 429 if no place is free in time.
        """
        line = self._lines.setdefault(key, _Line())
        if line.running < self._places:
            line.running += 1
        else:
            await self._wait(key, line)

    def is_awaited(self, key: str) -> bool:
        """Return whether requests wait for a place."""
        return bool(self._lines[key].waiting)

    def leave(self, key: str) -> None:
        """Pass the place on to the next request."""
        line = self._lines[key]
        if line.waiting:
            line.waiting.popleft().set_result(None)
            return
        line.running -= 1
        if not line.running:
            del self._lines[key]

    async def _wait(self, key: str, line: _Line) -> None:
        """Wait until a request that leaves passes its place on."""
        turn = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        try:
            await asyncio.wait((turn,), timeout=self._wait_seconds)
        except asyncio.CancelledError:
            if turn.done():
                self.leave(key)
            else:
                line.waiting.remove(turn)
            raise
        if not turn.done():
            line.waiting.remove(turn)
            raise too_many(self._noun, self._places)


class _Activity:
    """Remembers when environments were active, as far as `others_since` needs."""

    def __init__(self) -> None:
        self._key, self._at, self._others_at = "", -math.inf, -math.inf

    def note(self, key: str) -> None:
        if key != self._key:
            self._key, self._others_at = key, self._at
        self._at = time.monotonic()

    def others_since(self, key: str, moment: float) -> bool:
        """Return whether a different environment was active since a moment of the monotonic clock."""
        return (self._others_at if key == self._key else self._at) >= moment


class Requests:
    """The requests in progress. Each holds a connection, so the requests of an environment must not hold all."""

    def __init__(self, places: int) -> None:
        """Count requests.

        Args:
            places: requests with the same key that may be in progress.
        """
        self._places = places
        self._running: Counter[str] = Counter()

    def enter(self, key: str) -> Callable[[], None]:
        """Count a request. Call the result when the request has ended.

        Raises:
            Problem: 429 if too many requests with the key are in progress.
        """
        if self._running[key] >= self._places:
            raise too_many("requests of an environment", self._places)
        self._running[key] += 1
        return partial(self._leave, key)

    def _leave(self, key: str) -> None:
        self._running[key] -= 1
        if not self._running[key]:
            del self._running[key]


def too_many(noun: str, places: int) -> Problem:
    """Build the 429 for a request without a place; the arguments are those of `Gate`."""
    message = f"Maximum of {noun} at the same time: {places}. Send fewer requests at the same time"
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    status, code = HTTPStatus.TOO_MANY_REQUESTS, ErrorCode.TOO_MANY_CONCURRENT_REQUESTS
    return Problem(status, TOO_MANY_REQUESTS, code=code, message=message, headers=headers)


class Question:
    """A live question that holds its places. It begins when it has all of them."""

    def __init__(self, others_since: Callable[[float], bool]) -> None:
        """Take a function that returns whether a different environment was active since a time."""
        self._others_since = others_since
        self._began: float | None = None

    def begin(self) -> None:
        self._began = time.monotonic()

    def pause(self) -> float:
        """Return how many seconds the places stay taken: 0 without a beginning, or a different active environment."""
        if self._began is None or not self._others_since(self._began):
            return 0.0
        return min(QUESTION_PAUSE * (time.monotonic() - self._began), LONGEST_QUESTION_PAUSE_SECONDS)


class Budget:
    """The gates of a process. A requester without an environment, an operator, has places of its own."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        searches: int,
        connections: int,
        waited: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Open the gates.

        Args:
            engine: the connections to the database.
            searches: of an environment at a time.
            connections: of an environment at a time.
            waited: receives the seconds that each request has waited for its connection.
        """
        self.engine, self._waited = engine, waited
        self._searches = Gate(searches, SEARCH_WAIT_SECONDS, "searches of an environment")
        self._expensive = Gate(1, SEARCH_WAIT_SECONDS, "expensive searches of an environment")
        self._connections = Gate(connections, WRITE_WAIT_SECONDS, "database queries of an environment")
        self._questions = Gate(1, QUESTION_WAIT_SECONDS, "live questions of an environment")
        self._all_questions = Gate(QUESTIONS, QUESTION_WAIT_SECONDS, "live questions of all environments")
        self._activity = _Activity()
        self._rows = Gate(1, WRITE_WAIT_SECONDS, "writes of the same object")
        self._batches = Gate(1, BATCH_WAIT_SECONDS, "batches of an environment")

    @asynccontextmanager
    async def search(self, requester: Requester, *, expensive: bool) -> AsyncIterator[None]:
        """Hold a place for searches. Of the places, only one is for expensive searches.

        Raises:
            Problem: 429, as all methods of this class.
        """
        key = requester.counted_as
        self._activity.note(key)
        async with self._only_expensive(key) if expensive else nullcontext(), self._searches.admit(key):
            yield

    @asynccontextmanager
    async def _only_expensive(self, key: str) -> AsyncIterator[None]:
        """Hold the only place for expensive searches.

        If different environments are active, the place stays taken for a while after the search: otherwise a merchant
        could keep a processor of OpenSearch busy without a pause.
        """
        await self._expensive.enter(key)
        began = time.monotonic()
        try:
            yield
        finally:
            if self._activity.others_since(key, began):
                pause = PAUSE * (time.monotonic() - began)
                asyncio.get_running_loop().call_later(pause, self._expensive.leave, key)
            else:
                self._expensive.leave(key)

    @asynccontextmanager
    async def question(self, requester: Requester) -> AsyncIterator[Question]:
        """Hold the only place of the environment for live questions in this process, and one of all environments.

        If different environments are active, both places stay taken for a while after a question that has begun.
        """
        key = requester.counted_as
        self._activity.note(key)
        await self._questions.enter(key)
        try:
            await self._all_questions.enter("")
        except BaseException:
            self._questions.leave(key)
            raise
        question = Question(partial(self._activity.others_since, key))
        try:
            yield question
        finally:
            pause = question.pause()
            for gate, of in ((self._questions, key), (self._all_questions, "")):
                if pause:
                    asyncio.get_running_loop().call_later(pause, gate.leave, of)
                else:
                    gate.leave(of)

    @asynccontextmanager
    async def connection(self, requester: Requester) -> AsyncIterator[AsyncConnection]:
        """Hold a database connection of the process."""
        self._activity.note(requester.counted_as)
        began = time.monotonic()
        async with self._connections.admit(requester.counted_as), self.engine.connect() as connection:
            self._waited(time.monotonic() - began)
            yield connection

    def row(self, requester: Requester, row_id: str) -> AbstractAsyncContextManager[None]:
        """Hold the only place for writes of a row, so that a write waiting for the row holds no connection.

        Args:
            requester: of the request.
            row_id: the id in the request's path.
        """
        key = f"{requester.counted_as} {row_id}"
        return self._with_pause(self._rows, requester, key, WRITE_PAUSE, LONGEST_WRITE_PAUSE_SECONDS)

    def batch(self, requester: Requester) -> AbstractAsyncContextManager[None]:
        """Hold the only place for batches of an environment, while different environments are active.

        A single active environment may write batches in parallel.
        """
        key = requester.counted_as
        if not self._activity.others_since(key, time.monotonic() - ACTIVE_SECONDS):
            return nullcontext()
        return self._with_pause(self._batches, requester, key, BATCH_PAUSE, LONGEST_BATCH_PAUSE_SECONDS)

    @asynccontextmanager
    async def _with_pause(
        self, gate: Gate, requester: Requester, key: str, factor: float, longest_seconds: float
    ) -> AsyncIterator[None]:
        """Hold a place for a write.

        If different environments are active and more writes wait for the place, it stays taken for a while after the
        write: otherwise a merchant could keep the database and a process busy without a pause.
        """
        await gate.enter(key)
        began = time.monotonic()
        try:
            yield
        finally:
            if gate.is_awaited(key) and self._activity.others_since(requester.counted_as, began - ACTIVE_SECONDS):
                pause = min(factor * (time.monotonic() - began), longest_seconds)
                asyncio.get_running_loop().call_later(pause, gate.leave, key)
            else:
                gate.leave(key)
