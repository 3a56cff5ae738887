"""Types of requests and responses about orders (contract.md §3)."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from api.auth import Requester
from api.drafts import BatchParameters
from api.error_codes import ErrorCode
from api.errors import Fault
from api.field_types import ExternalId, Metadata, MetadataChange, or_null
from api.pages import MOMENT_FORMAT, Moment, PageInfo, TwoWayParameters
from api.scopes import FieldScope
from api.validation import Input
from infra import emails, fields
from infra.wire import JSONObject, Time


def _amount(value: Any) -> Decimal:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError("Expected a decimal number, as a number or a string")
    if isinstance(value, float) and value.is_integer():  # str() would write 1e14 with 16 digits, 100000000000000.0
        value = int(value)
    return fields.amount(str(value))


Amount = Annotated[
    Decimal,
    msgspec.Meta(
        description="A decimal number, 0 or more, with at most 4 decimals and 15 digits. Send a number or a string.",
        examples=["149.99"],
        extra={"parse": lambda value, _: _amount(value), "code": ErrorCode.INVALID_AMOUNT},
        extra_json_schema={
            "minimum": 0,
            "pattern": r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$",
        },
    ),
]


def _quantity(value: Any) -> Decimal:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("Expected a number")
    return fields.quantity(value)


Quantity = Annotated[
    Decimal,
    msgspec.Meta(
        description=f"A number with at most {fields.QUANTITY_DECIMALS} decimals.",
        extra={"parse": lambda value, _: _quantity(value)},
        extra_json_schema={"type": "number", "minimum": 0, "maximum": fields.MAX_QUANTITY},
    ),
]
Currency = Annotated[
    str,
    msgspec.Meta(
        description="An ISO 4217 currency code, also a withdrawn code. Lower case is accepted.",
        examples=["USD"],
        extra={"check": lambda value, _: fields.currency(value), "code": ErrorCode.INVALID_CURRENCY},
    ),
]
Status = Literal["CREATED", "COMPLETED", "CANCELLED", "REFUNDED"]
ShortText = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


_STATUS = msgspec.Meta(description="Only `CREATED` and `COMPLETED` orders count in the consumer's totals.")
_REFUNDED_AMOUNT = msgspec.Meta(description="A decimal number from 0 to `amount`, as a number or a string.")
_BASE_AMOUNT = msgspec.Meta(
    description="`amount` in the environment's currency, as a number or a string. Required in another currency; in the "
    "environment's currency it equals `amount`."
)


class OrderItem(Input, kw_only=True):
    """A line of an order."""

    example: ClassVar[dict[str, Any]] = {"productId": "85123A", "variantId": None, "quantity": 6, "unitAmount": "2.55"}

    product_id: ShortText
    """Your own id of the product."""
    variant_id: ShortText | None = None
    """Your own id of the variant of the product."""
    quantity: Quantity
    """How many were ordered."""
    unit_amount: Amount | None = None


class ConsumerReference(Input):
    """A consumer, named by either `email` or `externalId`."""

    email: (
        Annotated[
            str,
            msgspec.Meta(
                extra={
                    "check": or_null(lambda value, _: emails.fold(fields.identifier(value, emails.MAX_LENGTH))),
                }
            ),
        ]
        | None
    ) = None
    """The e-mail address of the consumer, in any spelling."""
    external_id: (
        Annotated[str, msgspec.Meta(extra={"check": or_null(lambda value, _: fields.identifier(value))})] | None
    ) = None
    """The external id of the consumer."""

    def faults(self, requester: Requester) -> Iterator[Fault]:
        del requester
        if (self.email is None) == (self.external_id is None):
            yield Fault("", "Name the consumer by either email or externalId", ErrorCode.NOT_COMBINABLE)


class OrderCreate(Input, kw_only=True):
    """An order to create. Name the consumer by either `consumerId` or `consumer`."""

    read_only: ClassVar[frozenset[str]] = frozenset({"id", "createdAt", "updatedAt"})
    example: ClassVar[dict[str, Any]] = {
        "consumer": {"externalId": "customer-17850"},
        "amount": "149.99",
        "items": [OrderItem.example],
    }
    # The answer tells which consumer, if any, has the e-mail address or the external id.
    field_scopes: ClassVar[tuple[FieldScope, ...]] = (FieldScope("consumer", "read:consumers"),)

    amount: Amount
    consumer_id: str | None = None
    """The id of the consumer."""
    consumer: ConsumerReference | None = None
    """The consumer by another value than the id."""
    external_id: ExternalId | None = None
    status: Annotated[Status, _STATUS] = "COMPLETED"
    refunded_amount: Annotated[Amount, _REFUNDED_AMOUNT] = Decimal(0)
    currency_code: (
        Annotated[Currency, msgspec.Meta(description="ISO 4217. The default is the environment's currency.")] | None
    ) = None
    base_amount: Annotated[Amount, _BASE_AMOUNT] | None = None
    items: Annotated[list[OrderItem], msgspec.Meta(max_length=200)] | None = None
    """The lines of the order, at most 200."""
    metadata: Metadata | None = None
    placed_at: Annotated[Moment, msgspec.Meta(description=f"{MOMENT_FORMAT} The default is now.")] | None = None

    def faults(self, requester: Requester) -> Iterator[Fault]:
        if (self.consumer_id is None) == (self.consumer is None):
            yield Fault("consumerId", "Name the consumer by either consumerId or consumer", ErrorCode.NOT_COMBINABLE)
        if self.refunded_amount > self.amount:
            yield Fault("refundedAmount", "Must not exceed amount", ErrorCode.OUT_OF_RANGE)
        if self.currency_code not in (None, requester.currency):
            if self.base_amount is None:
                message = f"Required in a currency other than {requester.currency}"
                yield Fault("baseAmount", message, ErrorCode.REQUIRED)
        elif self.base_amount not in (None, self.amount):
            yield Fault("baseAmount", f"Must equal amount in {requester.currency}", ErrorCode.INVALID_AMOUNT)


Unset = msgspec.UnsetType
UNSET = msgspec.UNSET


class OrderUpdate(Input):
    """Changes to an order: a field that is sent changes, an omitted field keeps its value, null clears a field.

    The consumer cannot change. `metadata` is merged (RFC 7396). If the order has the environment's currency,
    `baseAmount` changes with `amount`.
    """

    read_only: ClassVar[frozenset[str]] = OrderCreate.read_only
    example: ClassVar[dict[str, Any]] = {"status": "REFUNDED", "refundedAmount": "149.99"}

    amount: Amount | Unset = UNSET
    consumer_id: str | Unset = UNSET
    """The consumer cannot change: leave it out, or send the id that the order has."""
    external_id: ExternalId | Unset | None = UNSET
    status: Annotated[Status, _STATUS] | Unset = UNSET
    refunded_amount: Annotated[Amount, _REFUNDED_AMOUNT] | Unset = UNSET
    currency_code: Currency | Unset = UNSET
    base_amount: Annotated[Amount, _BASE_AMOUNT] | Unset = UNSET
    items: Annotated[list[OrderItem], msgspec.Meta(max_length=200)] | Unset | None = UNSET
    """The lines of the order, at most 200. Replaces all lines."""
    metadata: MetadataChange | Unset | None = UNSET
    """Merged (RFC 7396): a null inside removes the key, null clears all keys."""
    placed_at: Moment | Unset = UNSET


class OrderUpsert(OrderUpdate):
    """An order named by `externalId`: changed as by PUT, or created as by POST."""

    example: ClassVar[dict[str, Any]] = {"externalId": "order-1001", **OrderCreate.example}
    field_scopes: ClassVar[tuple[FieldScope, ...]] = OrderCreate.field_scopes

    consumer: ConsumerReference | Unset = UNSET
    """The consumer by another value than the id."""


def _placed(bound: str) -> msgspec.Meta:
    return msgspec.Meta(description=f"Only orders placed {bound} this time: {MOMENT_FORMAT}")


def _updated(bound: str) -> msgspec.Meta:
    text = f"Only orders whose last change, the field `updatedAt`, was {bound} this time: {MOMENT_FORMAT}"
    return msgspec.Meta(description=text)


_MATCH_BY = msgspec.Meta(description="The field that names the order: `externalId`, which is also the default.")


class OrderUpsertParameters(Input):
    """Parameters of an upsert."""

    match_by: Annotated[Literal["externalId"], _MATCH_BY] | None = None


class OrderBatchUpsertParameters(BatchParameters):
    """Parameters of a batch of upserts."""

    match_by: Annotated[Literal["externalId"], _MATCH_BY] | None = None


class OrderLookupParameters(Input, kw_only=True):
    """The value of a single order."""

    external_id: Annotated[
        str,
        msgspec.Meta(
            max_length=255,
            description="The whole external id.",
            extra={"check": lambda value, _: fields.identifier(value)},
        ),
    ]


OrderSortField = Literal["placedAt", "updatedAt"]


class OrderListParameters(TwoWayParameters):
    """Parameters of the list of orders. An order must pass all filters."""

    kind: ClassVar[str] = "orders"
    consumer_id: Annotated[str, msgspec.Meta(description="Only orders of this consumer.")] | None = None
    external_id: (
        Annotated[
            str,
            msgspec.Meta(
                max_length=255,
                description="Only the order with this external id.",
                extra={"check": lambda value, _: fields.identifier(value)},
            ),
        ]
        | None
    ) = None
    status: Annotated[Status, msgspec.Meta(description="Only orders with this status.")] | None = None
    placed_after: Annotated[Moment, _placed("at or after")] | None = None
    placed_before: Annotated[Moment, _placed("before")] | None = None
    updated_after: Annotated[Moment, _updated("at or after")] | None = None
    updated_before: Annotated[Moment, _updated("before")] | None = None
    sort_by: (
        Annotated[
            OrderSortField,
            msgspec.Meta(description="The time to sort by, by default `placedAt`. The newest comes first, ties by id."),
        ]
        | None
    ) = None

    def order(self) -> OrderSortField:
        """Return the time to sort by."""
        return self.sort_by or "placedAt"

    def list_parameters(self) -> dict[str, Any]:
        return super().list_parameters() | {"sort_by": self.order()}


AmountText = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,15}(\.[0-9]{1,4})?$", examples=["149.99"])]
Items = Annotated[
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "array", "items": {"$ref": "#/components/schemas/OrderItem"}})
]


class Order(msgspec.Struct, rename="camel"):
    """An order. Amounts are decimal strings."""

    id: Annotated[str, msgspec.Meta(pattern="^ord_[0-9A-HJKMNP-TV-Z]{26}$")]
    """The id, in order of creation."""
    consumer_id: Annotated[str, msgspec.Meta(pattern="^cons_[0-9A-HJKMNP-TV-Z]{26}$")]
    """The id of the consumer."""
    external_id: str | None
    """Your own id, unique among the orders of the environment."""
    status: Annotated[Status, _STATUS]
    amount: AmountText
    """The amount of the order, in `currencyCode`."""
    refunded_amount: AmountText
    """The part of `amount` that was refunded."""
    currency_code: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
    """ISO 4217."""
    base_amount: AmountText
    """`amount` in the environment's currency."""
    items: Items | None
    """The lines of the order."""
    metadata: JSONObject | None
    """A JSON object of your own."""
    placed_at: Time
    """Time at which the consumer placed the order."""
    created_at: Time
    """Time of creation."""
    updated_at: Time
    """Time of the last change."""

    example: ClassVar[dict[str, Any]] = {
        "id": "ord_01JBK3Q8X5W5V0B6T1R2M3N4P5",
        "consumerId": "cons_01JBK3Q8X5W5V0B6T1R2M3N4P5",
        "externalId": "order-536365",
        "status": "COMPLETED",
        "amount": "149.99",
        "refundedAmount": "0",
        "currencyCode": "USD",
        "baseAmount": "149.99",
        "items": [OrderItem.example],
        "metadata": None,
        "placedAt": "2024-11-01T10:00:00.000Z",
        "createdAt": "2024-11-01T10:00:00.000Z",
        "updatedAt": "2024-11-01T10:00:00.000Z",
    }


class OrderPage(msgspec.Struct, rename="camel"):
    """A page of orders, newest first."""

    data: list[Order]
    """The orders of the page."""
    page_info: PageInfo

    example: ClassVar[dict[str, Any]] = {"data": [Order.example], "pageInfo": PageInfo.example}
