"""Generate sample orders, the same at every call."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

from infra.local.sample.consumers import END, SEED, Person, chance, ulid
from infra.local.sample.people import CURRENCIES

BASE_CURRENCY = "USD"
MAX_ORDERS = 40
"""Maximum number of orders of a consumer."""
CENT, NOTHING = Decimal("0.01"), Decimal("0.00")
OPEN_ORDER_AGE = timedelta(days=10)

# Product, variants, unit price in US dollars.
PRODUCTS = (
    ("mug-enamel", ("white", "blue"), "14.90"),
    ("notebook-a5", ("lined", "dotted", "blank"), "9.50"),
    ("backpack-rolltop", ("black", "olive"), "129.00"),
    ("lamp-desk", (None,), "84.99"),
    ("socks-merino", ("s", "m", "l"), "18.00"),
    ("kettle-gooseneck", ("steel", "copper"), "76.50"),
    ("poster-print", ("a3", "a2", "a1"), "32.25"),
    ("chair-lounge", (None,), "649.00"),
    ("candle-beeswax", (None,), "22.40"),
    ("headphones-studio", ("black",), "219.95"),
    ("gift-card", (None,), "50.00"),
)


class Order(NamedTuple):
    """A row of `orders`, without the environment."""

    id: str
    consumer_id: str
    external_id: str | None
    status: str
    amount: Decimal
    refunded_amount: Decimal
    currency_code: str
    base_amount: Decimal
    items: list[dict[str, Any]]
    placed_at: datetime
    created_at: datetime


def orders(persons: list[Person]) -> Iterator[Order]:
    """Yield the orders of the consumers, for each consumer in order of time."""
    random = Random(SEED + 1)  # noqa: S311 (nothing secret)
    number = 500_000
    for person in persons:
        for moment in _moments(random, person.consumer.created_at):
            number += 1
            yield _order(random, person, moment, f"SO-{number}" if chance(random, 0.9) else None)


def _moments(random: Random, since: datetime) -> list[datetime]:
    # Half of the consumers have no order, a quarter have a single order, and a few have many.
    count = min(MAX_ORDERS, int(random.paretovariate(1)) - 1)
    span = (END - since) // timedelta(milliseconds=1)
    return sorted(since + timedelta(milliseconds=int(span * random.random())) for _ in range(count))


def _order(random: Random, person: Person, moment: datetime, external_id: str | None) -> Order:
    currency, rate = BASE_CURRENCY, Decimal(1)
    if person.country in CURRENCIES and chance(random, 0.5):
        currency, units = CURRENCIES[person.country]
        rate = Decimal(units)
    items = [_item(random, rate) for _ in range(random.choices((1, 2, 3, 4), (60, 25, 10, 5))[0])]
    amount = sum((Decimal(item["unitAmount"]) * item["quantity"] for item in items), Decimal(0))
    status, refunded = _outcome(random, amount, moment)
    return Order(
        id=ulid(random, "ord_", moment),
        consumer_id=person.consumer.id,
        external_id=external_id,
        status=status,
        amount=amount,
        refunded_amount=refunded,
        currency_code=currency,
        base_amount=(amount / rate).quantize(CENT),
        items=items,
        placed_at=moment,
        created_at=moment,
    )


def _item(random: Random, rate: Decimal) -> dict[str, Any]:
    product, variants, price = random.choice(PRODUCTS)
    return {
        "productId": product,
        "variantId": random.choice(variants),
        "quantity": random.choices((1, 2, 3, 12), (80, 13, 5, 2))[0],
        "unitAmount": str((Decimal(price) * rate).quantize(CENT)),
    }


def _outcome(random: Random, amount: Decimal, moment: datetime) -> tuple[str, Decimal]:
    """Return the order's status and refunded amount."""
    match random.choices(("kept", "in part", "returned", "called off"), (87, 4, 4, 5))[0]:
        case "in part":
            return "COMPLETED", (amount * random.randint(1, 3) / 4).quantize(CENT)
        case "returned":
            return "REFUNDED", amount
        case "called off":
            return "CANCELLED", NOTHING
        case _:
            return "CREATED" if END - moment < OPEN_ORDER_AGE else "COMPLETED", NOTHING
