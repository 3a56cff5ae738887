"""What a request may say of an order, and how one is shown (contract.md §3)."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from api.auth import Caller
from api.consumers.schemas import ExternalId, Metadata, Moment
from api.errors import Fault
from api.validation import Body
from infra import fields


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
    ),
]
Currency = Annotated[
    str,
    msgspec.Meta(description="ISO 4217.", examples=["USD"], extra={"check": lambda value, _: fields.currency(value)}),
]
Status = Literal["CREATED", "COMPLETED", "CANCELLED", "REFUNDED"]
ShortText = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class Item(Body, kw_only=True):
    product_id: ShortText
    variant_id: ShortText | None = None
    quantity: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
    unit_amount: Amount | None = None


class ConsumerReference(Body):
    """A consumer by what the sender knows of it: one of the two."""

    email: str | None = None
    external_id: str | None = None

    def faults(self, caller: Caller) -> Iterator[Fault]:
        del caller
        if (self.email is None) == (self.external_id is None):
            yield Fault("", "Name the consumer by either email or externalId")


class NewOrder(Body, kw_only=True):
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


class Order(msgspec.Struct, rename="camel"):
    """An order as the API shows it. Amounts are decimal strings."""

    id: str
    consumer_id: str
    external_id: str | None
    status: str
    amount: str
    refunded_amount: str
    currency_code: str
    base_amount: str
    items: msgspec.Raw | None
    metadata: msgspec.Raw | None
    placed_at: str
    created_at: str
    updated_at: str
