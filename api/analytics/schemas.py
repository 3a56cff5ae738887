"""Bodies and answers of live questions, in OpenSearch's own language. Names are OpenSearch's, in snake case."""

from typing import Annotated, Any, ClassVar

import msgspec

from api.validation import Input

Anything = dict[str, Any]


class LiveSearch(Input):
    """A search. The allowed queries and aggregations are a list (docs/analysts.md); a 400 names any other member."""

    query: Any = msgspec.UNSET
    """A query."""
    aggs: Any = msgspec.UNSET
    """Aggregations."""
    aggregations: Any = msgspec.UNSET
    """The same as `aggs`."""
    size: Any = msgspec.UNSET
    """Number of hits: 0 to 10,000, by default 10."""
    from_: Any = msgspec.field(name="from", default=msgspec.UNSET)
    """Hits to leave out."""
    sort: Any = msgspec.UNSET
    """Fields to sort by."""
    search_after: Any = msgspec.field(name="search_after", default=msgspec.UNSET)
    """The sort values of the last hit."""
    source: Any = msgspec.field(name="_source", default=msgspec.UNSET)
    """Fields of the hits to show."""
    track_total_hits: Any = msgspec.field(name="track_total_hits", default=msgspec.UNSET)
    """Whether, and up to which number, hits are counted."""
    pit: Any = msgspec.UNSET
    """A point in time."""

    example: ClassVar[Anything] = {
        "size": 0,
        "query": {"range": {"totalOrders": {"gte": 2}}},
        "aggs": {
            "countries": {"terms": {"field": "phoneCountry"}, "aggs": {"value": {"sum": {"field": "totalOrderValue"}}}}
        },
    }


class LiveCount(Input):
    """A count."""

    query: Any = msgspec.UNSET
    """A query."""

    example: ClassVar[Anything] = {"query": {"range": {"totalOrders": {"gte": 2}}}}


class LiveParameters(Input):
    """Parameters of a search, in place of the members of the body."""

    size: Annotated[int, msgspec.Meta(ge=0, le=10_000, description="Number of hits.")] | None = None
    track_total_hits: Annotated[bool, msgspec.Meta(description="Whether hits are counted.")] | None = msgspec.field(
        name="track_total_hits", default=None
    )


class CapabilityParameters(Input):
    """Parameters of the list of fields."""

    fields: Annotated[str, msgspec.Meta(description="Ignored: all fields are listed.")] | None = None


class PointParameters(Input):
    """Parameters of a point in time."""

    keep_alive: (
        Annotated[
            str,
            msgspec.Meta(
                pattern="^[0-9]{1,9}(ms|s|m|h|d)$",
                description="A time such as `1m`. Ignored: a point in time is kept for 2 minutes.",
            ),
        ]
        | None
    ) = msgspec.field(name="keep_alive", default=None)


class PointsToDelete(Input):
    """Points in time to delete."""

    pit_id: Annotated[list[str], msgspec.Meta(min_length=1, max_length=100)] = msgspec.field(name="pit_id")
    """The ids."""

    example: ClassVar[Anything] = {"pit_id": ["AXxaCbjIBnxI…"]}


class LiveAnswer(msgspec.Struct, omit_defaults=True):
    """The answer to a search."""

    took: int
    """Milliseconds."""
    timed_out: bool
    """Always false: an answer is complete."""
    hits: Anything
    """The hits."""
    aggregations: Anything | None = None
    """The aggregations; absent without any."""

    example: ClassVar[Anything] = {
        "took": 12,
        "timed_out": False,
        "hits": {"total": {"value": 4811, "relation": "eq"}, "max_score": None, "hits": []},
        "aggregations": {"countries": {"buckets": [{"key": "GB", "doc_count": 3122, "value": {"value": 98765.4321}}]}},
    }


class LiveCountAnswer(msgspec.Struct):
    """The answer to a count."""

    count: int
    """The exact number of matching consumers."""

    example: ClassVar[Anything] = {"count": 4811}


class PointInTime(msgspec.Struct):
    """A point in time."""

    pit_id: str
    """The id, valid for 2 minutes after its last use."""

    example: ClassVar[Anything] = {"pit_id": "AXxaCbjIBnxI…"}


class DeletedPoints(msgspec.Struct):
    """The deleted points in time."""

    pits: list[Anything]
    """The ids."""

    example: ClassVar[Anything] = {"pits": [{"pit_id": "AXxaCbjIBnxI…", "successful": True}]}


class LiveFields(msgspec.Struct):
    """The fields of questions."""

    consumers: Anything
    """The mapping."""

    example: ClassVar[Anything] = {"consumers": {"mappings": {"properties": {"totalOrders": {"type": "integer"}}}}}


class LiveCapabilities(msgspec.Struct):
    """The fields, and the uses of each."""

    indices: list[str]
    """Always `consumers`."""
    fields: Anything
    """By name and type."""

    example: ClassVar[Anything] = {
        "indices": ["consumers"],
        "fields": {"totalOrders": {"integer": {"type": "integer", "searchable": True, "aggregatable": True}}},
    }


class LiveInfo(msgspec.Struct):
    """The server, for the first request of a client."""

    name: str
    """This service."""
    cluster_name: str
    """This service."""
    version: Anything
    """The version of OpenSearch with the same language."""
    tagline: str
    """Where to read more."""

    example: ClassVar[Anything] = {
        "name": "consumers",
        "cluster_name": "consumers",
        "version": {"distribution": "opensearch", "number": "3.8.0"},
        "tagline": "Live questions about consumers: see docs/analysts.md",
    }
