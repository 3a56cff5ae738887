"""Types of OpenSearch's `_search` responses, decoded with msgspec. Make a decoder once, at module level:

    _decode = msgspec.json.Decoder(SearchResponse[SourceHit[Row]]).decode

`Hit` is for requests with `"_source": False`. For another member of a hit, such as `_index`, declare a subclass.
"""

from typing import Any, Generic, TypeVar

import msgspec

Source = TypeVar("Source")
NOT_REQUESTED = -1


class Hit(msgspec.Struct, kw_only=True, gc=False):
    """A found document, without source. `gc=False`: hits form no reference cycles, and pages decode faster."""

    id: str = msgspec.field(name="_id")
    version: int = msgspec.field(name="_version", default=NOT_REQUESTED)
    """Requested with `"version": True`."""
    seq_no: int = msgspec.field(name="_seq_no", default=NOT_REQUESTED)
    """Requested, like `primary_term`, with `"seq_no_primary_term": True`."""
    primary_term: int = msgspec.field(name="_primary_term", default=NOT_REQUESTED)
    routing: str | None = msgspec.field(name="_routing", default=None)
    """The routing value the document was written with; None: its id."""
    matched_queries: list[str] = msgspec.field(default_factory=list)
    """Names (`_name`) of the clauses matched by the document."""
    sort: list[Any] = msgspec.field(default_factory=list)
    """Sort values, in the order of the request's `sort`."""


class SourceHit(Hit, Generic[Source], kw_only=True, gc=False):
    """A found document with source."""

    source: Source = msgspec.field(name="_source")


AnyHit = TypeVar("AnyHit", bound=Hit)


class Total(msgspec.Struct):
    value: int


class Hits(msgspec.Struct, Generic[AnyHit]):
    hits: list[AnyHit]
    total: Total | None = None
    """None with `"track_total_hits": False`."""


class SearchResponse(msgspec.Struct, Generic[AnyHit]):
    hits: Hits[AnyHit]
