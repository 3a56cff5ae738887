"""Folders for the data of servers: in memory if there is room, because tests make and delete many small files."""

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
"""A file system in memory on Linux. In a container it has 64 MB, unless the container asks for more."""
PREFIX = "consumers-tests-"
NEEDED_BYTES = 12 << 30
"""The servers of three processes keep up to 5 GB of data, and all processes use about 6 GB."""


@contextmanager
def server_folder(factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a folder for servers; at the end, keep only their logs, in the temporary folder of the tests."""
    kept = factory.mktemp("servers")
    _remove_remains()
    if not _has_room():
        yield kept
        for data in ("postgresql", "valkey", "opensearch"):
            shutil.rmtree(kept / data, ignore_errors=True)
        return
    folder = MEMORY / f"{PREFIX}{os.getpid()}-{kept.name}"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier process with this id
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        with suppress(OSError, shutil.Error):
            shutil.copytree(folder / "log", kept / "log")
        shutil.rmtree(folder, ignore_errors=True)


def _has_room() -> bool:
    """Return whether the file system and the free memory suffice."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) << 10
        return min(free, shutil.disk_usage(MEMORY).free, _free_in_container()) >= NEEDED_BYTES
    except OSError:
        return False


def _free_in_container() -> float:
    """Return the bytes that the control group of this process may still use; infinite without a limit."""
    try:
        limit, used = (Path("/sys/fs/cgroup", f"memory.{name}").read_text().strip() for name in ("max", "current"))
        return math.inf if limit == "max" else int(limit) - int(used)
    except OSError:
        return math.inf


def _remove_remains() -> None:
    """Remove the folders of killed test processes: otherwise they would use memory until the machine restarts."""
    for folder in MEMORY.glob(f"{PREFIX}*"):
        process, _, _ = folder.name.removeprefix(PREFIX).partition("-")
        if not Path("/proc", process).exists():
            shutil.rmtree(folder, ignore_errors=True)
