"""Whether the worker is stopping, also known in its pool processes: a task that waits for changes ends at once."""

import mmap
from typing import Any

from celery.signals import worker_shutting_down

# Shared with the forked pool processes: Celery sends the signal in the main process only.
_flag = mmap.mmap(-1, 1)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]  # Celery ships no types
def note(**_: Any) -> None:
    """Note that the worker is stopping."""
    _flag[0] = 1


def is_stopping() -> bool:
    return bool(_flag[0])
