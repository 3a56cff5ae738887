"""Drafts: request bodies together with their schema faults.

A client should learn every problem of a body from a single response: schema faults (a malformed address) as well as
faults found only in the database (a taken address, an unknown id). A handler therefore declares its payload as a draft
if the write can fail in the database. Even a draft with schema faults goes to the database, where nothing is stored;
`Draft.refuse` then answers 400 with all faults. A handler with a plain type as its payload never sees schema faults:
the body is refused before the handler runs.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Generic, Literal, TypeVar

import msgspec

from api.errors import Faults, ItemFault, refuse
from api.validation import Input

T = TypeVar("T")


class Draft(msgspec.Struct, Generic[T], frozen=True):
    """A body and its schema faults.

    A faulty field of an item is UNSET, even if the type requires the field. An item of a batch is None if the body has
    something else than an object there.
    """

    items: Sequence[T | None]
    faults: Faults
    item_faults: Mapping[int, Faults] = {}
    """The same faults by the index of the item; empty for a body with a single object."""
    is_batch: ClassVar[bool]

    def refuse(self, database_faults: Sequence[ItemFault]) -> None:
        """Raise 400 with the schema faults and the faults found in the database; return if there are none."""
        named = [item.in_batch() if self.is_batch else item.fault for item in database_faults]
        refuse(self.faults.joined(named))


class ObjectDraft(Draft[T], Generic[T], frozen=True):
    """A body with a single object."""

    is_batch: ClassVar[bool] = False

    @property
    def value(self) -> T:
        [value] = self.items
        assert value is not None, "a body other than an object is refused when it is read"
        return value


class BatchDraft(Draft[T], Generic[T], frozen=True):
    """A body with an array of objects. Faults name the index of the item: `[3].email`."""

    is_batch: ClassVar[bool] = True


OnError = Literal["abort", "continue"]


class BatchParameters(Input):
    """Parameters of a batch."""

    on_error: (
        Annotated[
            OnError,
            msgspec.Meta(
                description="`abort`, the default: all or nothing. `continue`: items without faults are stored, and a "
                "207 has the outcome of each item."
            ),
        ]
        | None
    ) = None
