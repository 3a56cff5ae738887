"""Types of requests and responses about audiences and their members (contract.md §4)."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from api.audiences.rules import (
    MAX_RULES,
    Rule,
    audience_filter_faults,
    rules_faults,
    rules_of_filter,
    type_faults,
)
from api.auth import Requester
from api.errors import Fault
from api.field_types import Filter, Metadata, MetadataChange
from api.pages import PageInfo, TwoWayParameters, including
from api.scopes import FieldScope
from api.validation import MAX_IDS, Input
from infra import fields
from infra.wire import JSONObject, Time

AudienceType = Literal["STATIC", "SYNCED_LIST", "DYNAMIC"]
Name = Annotated[
    str,
    msgspec.Meta(
        description="1 to 255 characters, without control characters. It is trimmed and stored in Unicode form NFC.",
        examples=["Big spenders"],
        extra={"check": lambda value, _: fields.full_name(value)},
        extra_json_schema={"minLength": 1},
    ),
]
Description = Annotated[str, msgspec.Meta(max_length=2000)]
Rules = Annotated[list[Rule], msgspec.Meta(max_length=MAX_RULES)]
ConsumerIds = Annotated[list[str], msgspec.Meta(max_length=MAX_IDS)]
READ_ONLY = frozenset({"id", "createdAt", "updatedAt"})
RULE_SCOPES = (FieldScope("rules", "read:consumers"), FieldScope("filter", "read:consumers"))
"""Rules ask for data of consumers, and the count of an audience with suitable rules answers."""


class AudienceCreate(Input, kw_only=True):
    """An audience to create. A `DYNAMIC` audience needs `rules`, or a `filter`, to be stored as rules."""

    read_only: ClassVar[frozenset[str]] = READ_ONLY
    ignored: ClassVar[frozenset[str]] = frozenset({"iconName", "lastRefreshedAt"})
    field_scopes: ClassVar[tuple[FieldScope, ...]] = RULE_SCOPES
    example: ClassVar[dict[str, Any]] = {"name": "Big spenders", "type": "DYNAMIC", "rules": [Rule.example]}

    name: Name
    type: AudienceType
    """`STATIC` and `SYNCED_LIST` have stored members, `DYNAMIC` has rules. The type cannot change."""
    description: Description | None = None
    """A text of your own, at most 2,000 characters."""
    metadata: Metadata | None = None
    rules: Rules | None = None
    """Required for a `DYNAMIC` audience. Rules of one group must all hold; any group suffices."""
    filter: Filter | None = None

    def faults(self, requester: Requester) -> Iterator[Fault]:
        del requester
        yield from audience_filter_faults(self.filter, self.rules)
        yield from rules_faults(self.rules)
        yield from type_faults(self.filter if self.rules is None else self.rules, self.type)

    def all_rules(self) -> list[Rule] | None:
        """Return the rules, from `rules` or from `filter`."""
        return self.rules if self.filter is None else rules_of_filter(self.filter)


class AudienceUpdate(Input):
    """Changes to an audience: a field that is sent changes, an omitted field keeps its value, null clears a field.

    The type cannot change. A `filter` can replace `rules`.
    """

    read_only: ClassVar[frozenset[str]] = READ_ONLY
    ignored: ClassVar[frozenset[str]] = frozenset({"iconName", "lastRefreshedAt"})
    field_scopes: ClassVar[tuple[FieldScope, ...]] = RULE_SCOPES
    example: ClassVar[dict[str, Any]] = {"name": "Biggest spenders"}

    name: Name | msgspec.UnsetType = msgspec.UNSET
    type: AudienceType | msgspec.UnsetType = msgspec.UNSET
    """The type cannot change: leave it out, or send the type that the audience has."""
    description: Description | msgspec.UnsetType | None = msgspec.UNSET
    """A text of your own, at most 2,000 characters."""
    metadata: MetadataChange | msgspec.UnsetType | None = msgspec.UNSET
    """Merged (RFC 7396): a null inside removes the key, null clears all keys."""
    rules: Rules | msgspec.UnsetType | None = msgspec.UNSET
    """Only for a `DYNAMIC` audience. Replaces all rules."""
    filter: Filter | msgspec.UnsetType = msgspec.UNSET

    def faults(self, requester: Requester) -> Iterator[Fault]:
        del requester
        rules = None if self.rules is msgspec.UNSET else self.rules
        yield from rules_faults(rules)
        if self.filter is not msgspec.UNSET:
            yield from audience_filter_faults(self.filter, rules)


class Members(Input, kw_only=True):
    """Consumers by id, at most 10,000."""

    consumer_ids: ConsumerIds
    """Ids of consumers, at most 10,000. An unknown id is a fault, and then nothing is stored."""

    example: ClassVar[dict[str, Any]] = {"consumerIds": ["cons_01JBK3Q8X5W5V0B6T1R2M3N4P5"]}


AudienceId = Annotated[str, msgspec.Meta(pattern="^aud_[0-9A-HJKMNP-TV-Z]{26}$")]
StoredRules = Annotated[
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "array", "items": {"$ref": "#/components/schemas/Rule"}})
]


class Audience(msgspec.Struct, rename="camel"):
    """An audience."""

    id: AudienceId
    """The id, in order of creation."""
    name: str
    """The name, not unique."""
    description: str | None
    """A text of your own."""
    metadata: JSONObject | None
    """A JSON object of your own."""
    type: AudienceType
    """`STATIC` and `SYNCED_LIST` have stored members, `DYNAMIC` has rules."""
    rules: StoredRules | None
    """The rules of a `DYNAMIC` audience; null for others."""
    created_at: Time
    """Time of creation."""
    updated_at: Time
    """Time of the last change of the audience itself, without its members."""

    example: ClassVar[dict[str, Any]] = {
        "id": "aud_01JBK3Q8X5W5V0B6T1R2M3N4P5",
        "name": "Big spenders",
        "description": None,
        "metadata": None,
        "type": "DYNAMIC",
        "rules": [Rule.example],
        "createdAt": "2024-11-01T10:00:00.000Z",
        "updatedAt": "2024-11-01T10:00:00.000Z",
    }


class AudienceReference(msgspec.Struct):
    """An audience of a consumer."""

    id: AudienceId
    """The id of the audience."""
    name: str
    """The name of the audience."""
    type: AudienceType
    """How members come into the audience."""

    example: ClassVar[dict[str, Any]] = {
        "id": "aud_01JBK3Q8X5W5V0B6T1R2M3N4P5",
        "name": "Big spenders",
        "type": "DYNAMIC",
    }


class AudienceCount(msgspec.Struct, rename="camel"):
    """The number of members of an audience."""

    audience_id: AudienceId
    """The id of the audience."""
    count: int
    """The exact number of members."""

    example: ClassVar[dict[str, Any]] = {"audienceId": "aud_01JBK3Q8X5W5V0B6T1R2M3N4P5", "count": 1}


class AudienceListParameters(TwoWayParameters):
    """Parameters of the list of audiences."""

    kind: ClassVar[str] = "audiences"
    not_in_list_id: ClassVar[frozenset[str]] = TwoWayParameters.not_in_list_id | {"include"}

    include: Annotated[
        list[Literal["rules"]],
        including("rules", description="`rules` may be named; an audience has its rules in any case."),
    ] = msgspec.field(default_factory=list)


class AudiencePage(msgspec.Struct, rename="camel"):
    """A page of audiences, newest first."""

    data: list[Audience]
    """The audiences of the page."""
    page_info: PageInfo

    example: ClassVar[dict[str, Any]] = {"data": [Audience.example], "pageInfo": PageInfo.example}


class MembersChanged(msgspec.Struct, rename="camel", omit_defaults=True):
    """How many members were added, removed or, if all were replaced, both."""

    audience_id: str
    """The id of the audience."""
    added_count: int | None = None
    """Consumers that are new members."""
    removed_count: int | None = None
    """Consumers that are members no longer."""

    example: ClassVar[dict[str, Any]] = {"audienceId": "aud_01JBK3Q8X5W5V0B6T1R2M3N4P5", "addedCount": 1}
