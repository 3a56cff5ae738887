"""A drain round in the test process, halting after each step as if the worker were frozen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from greenlet import getcurrent, greenlet
from opensearchpy.exceptions import OpenSearchException
from sqlalchemy.exc import DBAPIError

from indexer.drain import claims, portions
from indexer.drain import round as drain
from indexer.drain.bulk import IndexUnavailable
from indexer.drain.round import drain_round
from tests.indexer.conftest import Pipeline

STEPS = {
    "claim": (claims, "claim"),
    "read": (portions, "read_documents"),
    "write": (drain, "write_documents"),
    "refresh": (drain, "make_searchable"),
    "forget": (drain, "forget"),
}


class Killed(Exception):  # noqa: N818 (an event, not an error)
    """The worker of the round was killed."""


class HaltingRound:
    """A round that can halt; while halted, the locks of the connection stay."""

    def __init__(self, pipeline: Pipeline, lane: str = "live", rows: int = claims.ROWS) -> None:
        self._pipeline, self._lane, self._rows = pipeline, lane, rows
        self._greenlet = greenlet(self._run)
        self.is_over = False

    def step_on(self) -> str | None:
        """Run until after the next step, and return the step's name; None at the end of the round."""
        step: str | None = self._greenlet.switch()
        return step

    def finish(self) -> None:
        while not self.is_over:
            self.step_on()

    def kill(self) -> None:
        """End the round as the database sees a killed worker: the transaction is rolled back."""
        if self._greenlet:  # started, and not ended
            self._greenlet.throw(Killed)
        self.is_over = True

    def _run(self) -> None:
        try:
            with self._pipeline.database.engine.connect() as connection:
                with connection.begin():
                    # A halted round never releases locks, so a round waiting for a lock must fail.
                    connection.execute(sa.text("SET lock_timeout = '1s'"))
                drain_round(connection, self._pipeline.writer, self._lane, self._rows)
        except (Killed, IndexUnavailable, OpenSearchException):
            pass
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == "55P03":
                raise AssertionError("a step of the drain waits for another drain's lock") from error
            # The server has ended the session after a long halt.
        finally:
            self.is_over = True


@contextmanager
def halting_rounds() -> Iterator[None]:
    """Make `HaltingRound`s halt; other rounds run as usual."""
    originals = {name: getattr(module, function) for name, (module, function) in STEPS.items()}
    for name, (module, function) in STEPS.items():
        setattr(module, function, _halting_after(name, originals[name]))
    try:
        yield
    finally:
        for name, (module, function) in STEPS.items():
            setattr(module, function, originals[name])


def _halting_after(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
    def halts(*arguments: Any, **options: Any) -> Any:
        result = step(*arguments, **options)
        if (parent := getcurrent().parent) is not None:
            parent.switch(name)
        return result

    return halts
