"""Other clocks for single processes, by libfaketime."""

from pathlib import Path

import pytest

LIBRARIES = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), *Path("/usr/lib/faketime").glob("libfaketime.so.1")]
needs_faketime = pytest.mark.skipif(
    not LIBRARIES, reason="libfaketime is not installed (Debian: apt install libfaketime)"
)


def clock(seconds: int) -> dict[str, str]:
    """Return the environment of a process whose clock differs by some seconds. Waits take as long as usual."""
    return {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME": f"{seconds:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
