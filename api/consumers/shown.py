"""Consumers as answers show them, with what was asked for besides."""

import msgspec

from api.audiences.schemas import AudienceReference
from api.consumers.matching import Match
from api.orders.schemas import Order
from api.pages import PageInfo
from infra.index.documents import Consumer


class ConsumerIncluding(Consumer):
    """A consumer with what `include` asked for: its audiences by name, its 50 newest orders."""

    audiences: list[AudienceReference] | msgspec.UnsetType = msgspec.UNSET
    orders: list[Order] | msgspec.UnsetType = msgspec.UNSET


class ListedConsumer(Consumer):
    """A row of the list; `include=audiences` puts its audiences there, by name."""

    audiences: list[AudienceReference] | msgspec.UnsetType = msgspec.UNSET


class FoundConsumer(Consumer, rename="camel"):
    """A row of a search; `explain=true` tells what of the question was found where."""

    matched_on: list[Match] | msgspec.UnsetType = msgspec.UNSET


class ConsumerPage(msgspec.Struct, rename="camel"):
    data: list[ListedConsumer]
    page_info: PageInfo
    total_count: int | msgspec.UnsetType = msgspec.UNSET


class SearchPage(msgspec.Struct, rename="camel"):
    data: list[FoundConsumer]
    page_info: PageInfo
