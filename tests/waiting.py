"""Waiting for a condition, instead of for some time."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], Value], timeout: float = 30, what: str = "the condition") -> Value:
    """Call it until what it returns is true, and give that.

    Raises:
        AssertionError: it is not, after so many seconds.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout} seconds in vain for {what}"
        time.sleep(POLL_SECONDS)
    return value
