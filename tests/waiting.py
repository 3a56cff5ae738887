"""Wait for a condition instead of a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

POLL_SECONDS = 0.02


def wait_until(
    condition: Callable[[], Value], timeout: float = 30, what: str = "the condition", interval: float = POLL_SECONDS
) -> Value:
    """Call a condition until its result is true, and return the result.

    Raises:
        AssertionError: the result is still false after the timeout.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout} seconds in vain for {what}"
        time.sleep(interval)
    return value
