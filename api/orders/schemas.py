"""What a request may say of an order, and how one is shown (contract.md §3)."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from api.auth import Caller
from api.errors import Fault
from api.field_types import ExternalId, Metadata
from api.pages import Moment, PageInfo, TwoWayParameters
from api.validation import Input
from infra import fields
from infra.wire import JSONObject, Time


def _amount(value: Any) -> Decimal:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError("Expected a decimal, as a number or a string")
    if isinstance(value, float) and value.is_integer():  # 1e14 has 15 digits, though Python writes one more
        value = int(value)
    return fields.amount(str(value))


Amount = Annotated[
    Decimal,
    msgspec.Meta(
        description="0 or more, at most 4 decimals and 15 digits; a number or a string.",
        examples=["149.99"],
        extra={"parse": lambda value, _: _amount(value)},
        extra_json_schema={
            "minimum": 0,
            "pattern": r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$",
        },
    ),
]
Currency = Annotated[
    str,
    msgspec.Meta(description="ISO 4217.", examples=["USD"], extra={"check": lambda value, _: fields.currency(value)}),
]
Status = Literal["CREATED", "COMPLETED", "CANCELLED", "REFUNDED"]
ShortText = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class Item(Input, kw_only=True):
    product_id: ShortText
    variant_id: ShortText | None = None
    quantity: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
    unit_amount: Amount | None = None


class ConsumerReference(Input):
    """A consumer by what the sender knows of it: one of the two."""

    email: str | None = None
    external_id: str | None = None

    def faults(self, caller: Caller) -> Iterator[Fault]:
        del caller
        if (self.email is None) == (self.external_id is None):
            yield Fault("", "Name the consumer by either email or externalId")


class NewOrder(Input, kw_only=True):
    """An order to create, of a consumer named by `consumerId` or `consumer`."""

    read_only: ClassVar[frozenset[str]] = frozenset({"id", "createdAt", "updatedAt"})

    amount: Amount
    consumer_id: str | None = None
    consumer: ConsumerReference | None = None
    external_id: ExternalId | None = None
    status: Status = "COMPLETED"
    refunded_amount: Amount = Decimal(0)
    currency_code: Currency | None = None
    base_amount: Amount | None = None
    items: Annotated[list[Item], msgspec.Meta(max_length=200)] | None = None
    metadata: Metadata | None = None
    placed_at: Moment | None = None

    def faults(self, caller: Caller) -> Iterator[Fault]:
        if (self.consumer_id is None) == (self.consumer is None):
            yield Fault("consumerId", "Name the consumer by either consumerId or consumer")
        if self.refunded_amount > self.amount:
            yield Fault("refundedAmount", "Must not exceed amount")
        if self.currency_code not in (None, caller.currency):
            if self.base_amount is None:
                yield Fault("baseAmount", f"Required in a currency other than {caller.currency}")
        elif self.base_amount not in (None, self.amount):
            yield Fault("baseAmount", f"Must equal amount in {caller.currency}")


Unset = msgspec.UnsetType
UNSET = msgspec.UNSET


class OrderChange(Input):
    """What to change of an order: given fields change, omitted ones stay, null clears. The consumer stays.

    `metadata` is merged (RFC 7396). In the environment's currency `baseAmount` follows `amount`.
    """

    read_only: ClassVar[frozenset[str]] = NewOrder.read_only

    amount: Amount | Unset = UNSET
    consumer_id: str | Unset = UNSET
    external_id: ExternalId | Unset | None = UNSET
    status: Status | Unset = UNSET
    refunded_amount: Amount | Unset = UNSET
    currency_code: Currency | Unset = UNSET
    base_amount: Amount | Unset = UNSET
    items: Annotated[list[Item], msgspec.Meta(max_length=200)] | Unset | None = UNSET
    metadata: dict[str, Any] | Unset | None = UNSET
    placed_at: Moment | Unset = UNSET


class OrderListParameters(TwoWayParameters):
    consumer_id: str | None = None
    status: Status | None = None
    placed_after: Moment | None = None
    placed_before: Moment | None = None


AmountText = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,15}(\.[0-9]{1,4})?$", examples=["149.99"])]
Items = Annotated[
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "array", "items": {"$ref": "#/components/schemas/Item"}})
]


class Order(msgspec.Struct, rename="camel"):
    """An order as the API shows it. Amounts are decimal strings."""

    id: Annotated[str, msgspec.Meta(pattern="^ord_[0-9A-HJKMNP-TV-Z]{26}$")]
    consumer_id: Annotated[str, msgspec.Meta(pattern="^cons_[0-9A-HJKMNP-TV-Z]{26}$")]
    external_id: str | None
    status: Status
    amount: AmountText
    refunded_amount: AmountText
    currency_code: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
    base_amount: AmountText
    items: Items | None
    metadata: JSONObject | None
    placed_at: Time
    created_at: Time
    updated_at: Time


class OrderPage(msgspec.Struct, rename="camel"):
    data: list[Order]
    page_info: PageInfo
