"""The header `Range` of a download (RFC 9110, section 14): a single range of bytes."""

import re

RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


class NotSatisfiable(Exception):  # noqa: N818 (names what is wrong with the range)
    """The range has no byte of the file."""


def requested(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte of the range and the byte behind its last.

    Args:
        header: the value of the header; None without one.
        size: of the file.

    Returns:
        None for the whole file: without a header, and for several ranges or another unit, which a server may ignore.

    Raises:
        NotSatisfiable: see there.
    """
    match = RANGE.fullmatch(header.strip()) if header else None
    if not match or match[0].endswith("=-"):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= end:
        raise NotSatisfiable
    return start, end
