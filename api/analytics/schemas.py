"""Bodies and answers of live questions, in OpenSearch's own language. Names are OpenSearch's, in snake case."""

from typing import Annotated, Any, ClassVar, Literal

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


def _named(name: str) -> Any:
    return msgspec.field(name=name, default=None)


EVERYWHERE = frozenset({
    "allow_no_indices", "error_trace", "expand_wildcards", "filter_path", "human", "ignore_throttled",
    "ignore_unavailable", "preference", "pretty", "routing",
})  # fmt: skip
"""Parameters that clients add to any request, and that change neither the rows nor the meaning of an answer."""
IN_SEARCHES = frozenset({
    "allow_partial_search_results", "batched_reduce_size", "cancel_after_time_interval", "ccs_minimize_roundtrips",
    "max_concurrent_shard_requests", "phase_took", "pre_filter_shard_size", "request_cache", "search_type", "timeout",
})  # fmt: skip
"""Further parameters of searches: an answer is always complete, and scores do not exist."""
BY_QUERY = "send the query in the body: docs/analysts.md lists the queries"
BY_POINT = "use a point in time and search_after: docs/analysts.md has an example"
Source = Annotated[str, msgspec.Meta(description="The body, for clients that send none.")]
SourceType = Annotated[Literal["application/json"], msgspec.Meta(description="The type of `source`.")]


class CountParameters(Input):
    """Parameters of a count."""

    ignored = EVERYWHERE
    elsewhere = dict.fromkeys(("q", "df", "analyzer", "default_operator", "lenient", "analyze_wildcard"), BY_QUERY)

    source: Source | None = None
    source_content_type: SourceType | None = _named("source_content_type")


class LiveParameters(Input):
    """Parameters of a search, in place of the members of the body."""

    ignored = EVERYWHERE | IN_SEARCHES
    elsewhere = CountParameters.elsewhere | dict.fromkeys(("scroll", "scroll_id"), BY_POINT)

    size: Annotated[int, msgspec.Meta(ge=0, le=10_000, description="Number of hits.")] | None = None
    from_: Annotated[int, msgspec.Meta(ge=0, le=10_000, description="Hits to leave out.")] | None = _named("from")
    sort: Annotated[str, msgspec.Meta(description="Fields to sort by, such as `totalOrders:desc,id`.")] | None = None
    track_total_hits: (
        Annotated[
            str,
            msgspec.Meta(
                pattern="^(true|false|[1-9][0-9]{0,8})$",
                description="`true`, `false`, or the number up to which hits are counted.",
            ),
        ]
        | None
    ) = _named("track_total_hits")
    shown: Annotated[str, msgspec.Meta(description="Fields of the hits to show, or `false`.")] | None = _named(
        "_source"
    )
    shown_fields: Annotated[str, msgspec.Meta(description="Fields of the hits to show.")] | None = _named(
        "_source_includes"
    )
    total_as_number: Annotated[bool, msgspec.Meta(description="Show the total as a number.")] | None = _named(
        "rest_total_hits_as_int"
    )
    typed_keys: Annotated[bool, msgspec.Meta(description="Put the type before names of aggregations.")] | None = _named(
        "typed_keys"
    )
    source: Source | None = None
    source_content_type: SourceType | None = _named("source_content_type")


class FieldsParameters(Input):
    """Parameters of the mapping."""

    ignored = EVERYWHERE | {"local", "master_timeout", "cluster_manager_timeout"}


class CapabilityParameters(Input):
    """Parameters of the list of fields."""

    ignored = EVERYWHERE | {"include_unmapped"}

    fields: Annotated[str, msgspec.Meta(description="Names of fields, separated by commas, with `*`.")] | None = None


class PointParameters(Input):
    """Parameters of a point in time."""

    ignored = EVERYWHERE | {"allow_partial_pit_creation"}

    keep_alive: (
        Annotated[
            str,
            msgspec.Meta(
                pattern="^[0-9]{1,9}(ms|s|m|h|d)$",
                description="A time such as `1m`. Ignored: a point in time is kept for 2 minutes.",
            ),
        ]
        | None
    ) = _named("keep_alive")


class InfoParameters(Input):
    """Parameters of the description."""

    ignored = EVERYWHERE


class NoBody(Input):
    """An empty object, or no body."""

    example: ClassVar[Anything] = {}


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
