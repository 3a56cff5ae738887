"""The content of consistency tokens (contract.md §1): a transaction, sealed."""

import struct
from uuid import UUID

from infra.seals import Seal

CONTENT = struct.Struct(">QQ16s")
"""The content of a token: the transaction's number, a position in the WAL, and the id of the epoch."""
CONTENT_BEFORE_EPOCHS = struct.Struct(">Q")
"""The content of the release before."""


def sealed_token(seal: Seal, xid: str, epoch: str | None, lsn: str | None) -> str:
    """Return the consistency token of a transaction.

    Args:
        seal: of the environment.
        xid: the number of the transaction.
        epoch: the id of the epoch; None only if the release before made the token.
        lsn: a position in the WAL at or after a record of the transaction.
    """
    if seal.makes_short_tokens():
        return seal.seal("token", CONTENT_BEFORE_EPOCHS.pack(int(xid)))
    assert epoch
    assert lsn
    high, low = lsn.split("/")
    return seal.seal("token", CONTENT.pack(int(xid), int(high, 16) << 32 | int(low, 16), UUID(epoch).bytes))
