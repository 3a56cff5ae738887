"""Failures of an export, with sentences for merchants."""

import errno
import shutil
from pathlib import Path

RESERVE_BYTES = 256 * 1024 * 1024
"""Free space left by an export, on the disk of the worker and on the disk of a shared folder."""
SPACE_FACTOR = 3
"""Space needed, as a multiple of the temporary files of the last export: these, the files, and room to grow."""
NO_SPACE = "The service has too little disk space for this export: ask the operator, or request it again later"
UNFINISHED = "The service could not finish this export: request it again later, or ask the operator"


class ExportFailed(Exception):  # noqa: N818 (names what happened to the export, as the caller treats it)
    """The export cannot be made, now or by another attempt. The message is for the merchant."""

    def __init__(self, message: str, reason: str) -> None:
        """Take the sentence for the merchant, and the reason for the log."""
        super().__init__(message)
        self.reason = reason


def require_space(folder: Path, needed_bytes: int = 0) -> None:
    """Check the free space of a disk.

    Raises:
        ExportFailed: less than the bytes needed and the reserve is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + RESERVE_BYTES:
        needed = (needed_bytes + RESERVE_BYTES) // 1048576
        raise ExportFailed(NO_SPACE, f"{folder} has {free // 1048576} MiB free, and {needed} MiB are needed")


def is_full(error: Exception) -> bool:
    """Return whether an error is that of a full disk."""
    return (isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}) or "No space left" in str(error)
