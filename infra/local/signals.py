"""End on Ctrl-C, on `kill`, and when the terminal closes."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first end signal; ignore later signals, to protect the shutdown."""
    before = {number: signal.signal(number, _interrupt) for number in END_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
