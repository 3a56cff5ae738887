"""What a request may say of an audience and its members, and how they are shown (contract.md §4)."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from api.audiences.rules import MAX_RULES, Rule, filter_problems, problems, rules_of, rules_problems
from api.auth import Caller
from api.errors import Fault
from api.field_types import Filter, Metadata
from api.pages import PageInfo
from api.validation import Input
from infra import fields
from infra.wire import JSONObject, Time

AudienceType = Literal["STATIC", "SYNCED_LIST", "DYNAMIC"]
Name = Annotated[
    str,
    msgspec.Meta(
        description="1 to 255 characters after trimming.",
        examples=["Big spenders"],
        extra={"check": lambda value, _: fields.full_name(value)},
        extra_json_schema={"minLength": 1},
    ),
]
Description = Annotated[str, msgspec.Meta(max_length=2000)]
Rules = Annotated[list[Rule], msgspec.Meta(max_length=MAX_RULES)]
ConsumerIds = Annotated[list[str], msgspec.Meta(max_length=10_000)]
READ_ONLY = frozenset({"id", "createdAt", "updatedAt"})


class NewAudience(Input, kw_only=True):
    """An audience to create: stored members, or rules; a `filter` may stand for rules, and is answered as those."""

    read_only: ClassVar[frozenset[str]] = READ_ONLY

    name: Name
    type: AudienceType
    description: Description | None = None
    metadata: Metadata | None = None
    rules: Rules | None = None
    filter: Filter | None = None

    def faults(self, caller: Caller) -> Iterator[Fault]:
        del caller
        yield from filter_problems(self.filter, self.rules)
        yield from rules_problems(self.rules)
        yield from problems(self.filter if self.rules is None else self.rules, self.type)

    def all_rules(self) -> list[Rule] | None:
        """The rules, in whichever way they were given."""
        return self.rules if self.filter is None else rules_of(self.filter)


class AudienceChange(Input):
    """What to change of an audience: given fields change, omitted ones stay, null clears. Its type is fixed.

    A `filter` may stand for `rules`.
    """

    read_only: ClassVar[frozenset[str]] = READ_ONLY

    name: Name | msgspec.UnsetType = msgspec.UNSET
    type: AudienceType | msgspec.UnsetType = msgspec.UNSET
    description: Description | msgspec.UnsetType | None = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    rules: Rules | msgspec.UnsetType | None = msgspec.UNSET
    filter: Filter | msgspec.UnsetType = msgspec.UNSET

    def faults(self, caller: Caller) -> Iterator[Fault]:
        del caller
        rules = None if self.rules is msgspec.UNSET else self.rules
        yield from rules_problems(rules)
        if self.filter is not msgspec.UNSET:
            yield from filter_problems(self.filter, rules)


class Members(Input, kw_only=True):
    """Consumers by id, 10,000 at the most."""

    consumer_ids: ConsumerIds


AudienceId = Annotated[str, msgspec.Meta(pattern="^aud_[0-9A-HJKMNP-TV-Z]{26}$")]
StoredRules = Annotated[
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "array", "items": {"$ref": "#/components/schemas/Rule"}})
]


class Audience(msgspec.Struct, rename="camel"):
    """An audience as the API shows it."""

    id: AudienceId
    name: str
    description: str | None
    metadata: JSONObject | None
    type: AudienceType
    rules: StoredRules | None
    created_at: Time
    updated_at: Time


class AudienceReference(msgspec.Struct):
    """An audience as a consumer in it shows it."""

    id: AudienceId
    name: str
    type: AudienceType


class AudienceCount(msgspec.Struct, rename="camel"):
    audience_id: AudienceId
    count: int


class AudiencePage(msgspec.Struct, rename="camel"):
    data: list[Audience]
    page_info: PageInfo


class MembersChanged(msgspec.Struct, rename="camel", omit_defaults=True):
    """How many were added, removed, or (replacing all) both."""

    audience_id: str
    added_count: int | None = None
    removed_count: int | None = None
