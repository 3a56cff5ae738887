"""Other clocks for single processes.

libfaketime was tried: with version 0.9.10, a wait with a timeout in Python never ends.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="no C compiler (cc) on Linux")


def shift_library(folder: Path) -> Path:
    """Compile the library that shifts the clock of a process which loads the library."""
    assert COMPILER
    library = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


def shifted(library: Path, seconds: int) -> dict[str, str]:
    """Return the environment of a process with another clock."""
    return {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(seconds)}
