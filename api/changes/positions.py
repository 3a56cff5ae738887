"""Positions in a feed of changes, and their cursors (docs/decisions/0029-changes.md).

A position says which transactions a reader has seen. Transactions commit in another order than they get their numbers,
so a number alone cannot say that. A snapshot of PostgreSQL can: it names the transactions that were in progress.

A reader walks from a seen snapshot to a target snapshot, in the order of transaction numbers and ids. At the end of the
walk the target is the seen snapshot of the next walk.
"""

from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec

from api.error_codes import ErrorCode
from api.errors import Fault, invalid
from infra.seals import Seal, SealError

BEGIN = ("0", "")
"""The position before every row of a walk."""


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """The transactions that were visible at a time."""

    epoch: str
    """The epoch of the database."""
    lsn: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{1,8}/[0-9A-F]{1,8}\Z")]
    """A position in the WAL: every change that the reader has seen was written before."""
    snapshot: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+:[0-9]+:[0-9,]*\Z")]
    """A `pg_snapshot` as text: `xmin:xmax:xip`."""
    at: datetime
    """The database's time of the snapshot."""

    @property
    def next_xid(self) -> str:
        """The first number that no transaction had at the time of the snapshot."""
        return self.snapshot.split(":")[1]

    @property
    def in_progress(self) -> list[str]:
        """The numbers of the transactions that were in progress."""
        return [xid for xid in self.snapshot.split(":")[2].split(",") if xid]


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where a reader is."""

    seen: Seen
    target: Seen | None = None
    """The end of the present walk; None between two walks."""
    xid: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+\Z")] = BEGIN[0]
    """The transaction of the last row that the reader got."""
    object_id: Annotated[str, msgspec.Meta(pattern=r"^[^\0]*\Z")] = BEGIN[1]
    """The object of that row."""


class ChangeCursors(NamedTuple):
    """The cursors of a feed."""

    seal: Seal
    resource: str

    def encode(self, position: Position) -> str:
        return self.seal.seal("changes", msgspec.msgpack.encode(position), self.resource.encode())

    def decode(self, cursor: str) -> Position:
        """Return the position of a cursor.

        Raises:
            Problem: 400 for a text that is no cursor of this feed and environment.
        """
        try:
            return msgspec.msgpack.decode(self.seal.open("changes", cursor, self.resource.encode()), type=Position)
        except (SealError, msgspec.MsgspecError):
            raise invalid(
                Fault(
                    "after",
                    f"Invalid cursor: send the endCursor of a page of /{self.resource}/changes, unchanged",
                    ErrorCode.INVALID_CURSOR,
                )
            ) from None
