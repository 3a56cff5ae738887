"""The data folder: owner, lock, secrets, free space."""

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
"""Minimum free space for a start, in bytes; OpenSearch turns read-only at half of this."""
ORPHANED_SERVERS_SECONDS = 20


@contextlib.contextmanager
def held(folder: Path, address: str) -> Iterator[int]:
    """Create the folder and lock it for this process; the lock file names the process and its address.

    Yields a file descriptor for the servers to inherit. The next start waits until every server has closed it, so a
    start right after a `kill -9` never runs beside servers that are still ending.

    Raises:
        LocalError: the folder is in use, belongs to another user, or cannot be created.
    """
    _make(folder)
    with (folder / "lock").open("a+") as own_lock, (folder / "lock.servers").open("a+") as servers_lock:
        if not _locked(own_lock):
            own_lock.seek(0)
            raise LocalError(
                f"the service already runs on {folder}: {own_lock.read()}; stop it, or set LOCAL_DIR to another folder"
            )
        own_lock.truncate(0)
        own_lock.write(f"process {os.getpid()}, {address}")
        own_lock.flush()
        deadline = time.monotonic() + ORPHANED_SERVERS_SECONDS
        while not _locked(servers_lock):
            if time.monotonic() > deadline:
                raise LocalError(
                    f"servers of an earlier start still use {folder}: end them, or set LOCAL_DIR to another folder"
                )
            time.sleep(0.1)
        yield servers_lock.fileno()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise LocalError(f"cannot use {folder}: {error.strerror}; set LOCAL_DIR to another folder") from error
    if owner != os.geteuid():
        raise LocalError(
            f"{folder} belongs to another user (uid {owner}): run as that user, or set LOCAL_DIR to another folder"
        )


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def secret(path: Path) -> str:
    """Return the password in this file; create the file, readable by the owner only, at the first use."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; only the owner can read the file."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.touch(mode=0o600)
        fresh.write_text(text)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def require_space(folder: Path, needed: int = NEEDED) -> None:
    """Check the free space of the disk.

    Raises:
        LocalError: fewer than `needed` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LocalError(
            f"the disk of {folder} is full: {free // MEGABYTE} MB are free, {needed // MEGABYTE} MB needed"
        )


@contextlib.contextmanager
def disk_full_errors(folder: Path) -> Iterator[None]:
    """Turn a "no space left" error of the block into a single line that names the disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise LocalError(f"the disk of {folder} is full: free some space and start again") from error
