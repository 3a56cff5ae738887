"""The data folder: who owns it, who uses it now, its secrets, its space."""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from infra.local.errors import LocalError

MEGABYTE = 1_000_000
NEEDED = 500 * MEGABYTE
"""Free space without which nothing is started; OpenSearch itself turns read-only at half of it."""
LEFT_BEHIND_SECONDS = 20


@contextlib.contextmanager
def held(folder: Path, address: str) -> Iterator[int]:
    """Make the folder and hold it for this process alone, noting who holds it and the address served.

    Gives a file descriptor for the servers to inherit: as long as one of them has it open, the next start
    waits. So a start right after a `kill -9` never runs beside servers that are still dying.

    Raises:
        LocalError: the folder is in use, belongs to another user, or cannot be made.
    """
    _make(folder)
    with (folder / "lock").open("a+") as mine, (folder / "lock.servers").open("a+") as theirs:
        if not _locked(mine):
            mine.seek(0)
            raise LocalError(f"it already runs on {folder}: {mine.read()}; stop that one, or set LOCAL_DIR")
        mine.truncate(0)
        mine.write(f"process {os.getpid()}, {address}")
        mine.flush()
        deadline = time.monotonic() + LEFT_BEHIND_SECONDS
        while not _locked(theirs):
            if time.monotonic() > deadline:
                raise LocalError(f"servers of an earlier start still use {folder}: end them, or set LOCAL_DIR")
            time.sleep(0.1)
        yield theirs.fileno()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise LocalError(f"cannot use {folder}: {error.strerror}; set LOCAL_DIR to another folder") from error
    if owner != os.geteuid():
        raise LocalError(
            f"{folder} belongs to another user (uid {owner}): run as that one, or set LOCAL_DIR to another"
        )


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def secret(path: Path) -> str:
    """Give the password in this file, made at its first use, readable by its owner alone."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner alone."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.touch(mode=0o600)
        fresh.write_text(text)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def require_space(folder: Path, needed: int = NEEDED) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        LocalError: fewer bytes are free than needed.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LocalError(
            f"the disk of {folder} is full: {free // MEGABYTE} MB are free, {needed // MEGABYTE} MB needed"
        )


@contextlib.contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Turn "no space left", wherever inside it strikes, into one line that says where."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise LocalError(f"the disk of {folder} is full: free some space and start again") from error
