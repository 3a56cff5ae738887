"""Consumers in responses: the members added by `include` and `explain`, and pages."""

from typing import Annotated, Any, ClassVar

import msgspec

from api.audiences.schemas import AudienceReference
from api.consumers.explanations import Match
from api.orders.schemas import Order
from api.pages import PageInfo
from infra.index.documents import Consumer


class ConsumerIncluding(Consumer):
    """A consumer. `audiences` and `orders` are present if named in `include`."""

    audiences: (
        Annotated[list[AudienceReference], msgspec.Meta(description="Ordered by name, then id.")] | msgspec.UnsetType
    ) = msgspec.UNSET
    orders: Annotated[list[Order], msgspec.Meta(description="The 50 newest orders.")] | msgspec.UnsetType = (
        msgspec.UNSET
    )

    example: ClassVar[dict[str, Any]] = Consumer.example | {"audiences": [AudienceReference.example]}


class ListedConsumer(Consumer):
    """A consumer in a list. `audiences` is present with `include=audiences`."""

    audiences: (
        Annotated[list[AudienceReference], msgspec.Meta(description="Ordered by name, then id.")] | msgspec.UnsetType
    ) = msgspec.UNSET


class FoundConsumer(Consumer, rename="camel"):
    """A consumer in a search result. `matchedOn` is present with `explain=true`."""

    matched_on: list[Match] | msgspec.UnsetType = msgspec.UNSET
    """How the consumer matches the search."""

    example: ClassVar[dict[str, Any]] = Consumer.example | {"matchedOn": [Match.example]}


class ConsumerPage(msgspec.Struct, rename="camel"):
    """A page of the list. `totalCount` is present with `count=true`."""

    data: list[ListedConsumer]
    """The consumers of the page, in the order of the list."""
    page_info: PageInfo
    total_count: int | msgspec.UnsetType = msgspec.UNSET
    """The exact number of rows in the whole list."""

    example: ClassVar[dict[str, Any]] = {"data": [ListedConsumer.example], "pageInfo": PageInfo.example}


class SearchPage(msgspec.Struct, rename="camel"):
    """A page of a search, best match first."""

    data: list[FoundConsumer]
    """The consumers of the page, best match first."""
    page_info: PageInfo

    example: ClassVar[dict[str, Any]] = {"data": [FoundConsumer.example], "pageInfo": PageInfo.example}
