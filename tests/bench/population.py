"""Millions of consumers with orders, generated from numbers, and inserted by two processes.

Triggers are disabled: totals are generated with the orders, and the outbox stays empty, because the index is built from
the tables afterwards.
"""

import unicodedata
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from multiprocessing import get_context
from random import Random
from typing import Any, NamedTuple

import msgspec
import psycopg
from ulid import ULID

from infra.index.documents import ConsumerRow
from infra.local.sample.people import PEOPLE

EPOCH, START, SPAN = datetime(1970, 1, 1, tzinfo=UTC), datetime(2024, 11, 1, tzinfo=UTC), timedelta(days=730)
CHUNK = 2_000
AT_ONCE, EVERY = 500, 10
"""Every tenth block of 500 consumers has a single creation time, like a batch."""
MEMBERS = 10
"""Every tenth consumer is a member of the stored audience."""
MOST_ORDERS = 40
DOMAINS = ("example.com", "example.net", "example.org")
TAGS = ("newsletter", "vip", "wholesale", "beta", "returns-often", "gift-buyer", "loyalty")
WEIGHTS = [group.weight for group in PEOPLE]
COPY_CONSUMERS = f"COPY consumers ({', '.join(ConsumerRow._fields)}) FROM STDIN"
COPY_ORDERS = """
    COPY orders (id, consumer_id, amount, placed_at, environment_id, currency_code, base_amount, created_at, updated_at)
    FROM STDIN"""
COPY_MEMBERS = "COPY audience_members (environment_id, audience_id, consumer_id) FROM STDIN"


class Order(NamedTuple):
    id: str
    consumer_id: str
    amount: Decimal
    placed_at: datetime


class Person(NamedTuple):
    row: ConsumerRow
    orders: list[Order]
    """Sorted by time."""


def people(environment_id: int, first: int, end: int, size: int) -> Iterator[Person]:
    """Generate the consumers of a range of numbers, of `size` in total."""
    random = Random(f"{environment_id} {first}")
    for number in range(first, end):
        at_once = number // AT_ONCE % EVERY == 0
        moment = START + SPAN * ((number - number % AT_ONCE if at_once else number) / size)
        moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
        milliseconds = (moment - EPOCH) // timedelta(milliseconds=1)
        group = random.choices(PEOPLE, WEIGHTS)[0]
        given, family, other = random.choice(group.given), random.choice(group.family), random.choice(group.family)
        name = group.form.format(
            given=given.text, family=family.text, family2=other.text, initial=random.choice("ABCDEFGHJKLMNPRSTW")
        )
        email = f"{_ascii(given.latin)}.{_ascii(family.latin)}{number}@{random.choice(DOMAINS)}"
        phone = "".join(str(random.randrange(10)) if place == "#" else place for place in group.phone)
        orders = min(MOST_ORDERS, int(random.paretovariate(1)) - 1)
        ordered = moment + timedelta(milliseconds=int(SPAN / timedelta(milliseconds=1) * random.random()))
        has_email = random.random() < 0.94
        consumer_id = f"cons_{ULID.from_int(milliseconds << 80 | number << 40 | random.getrandbits(40))}"
        bought = [_order(random, consumer_id, ordered, place) for place in range(orders)]
        row = ConsumerRow(
            id=consumer_id,
            environment_id=environment_id,
            version=1,
            email=email if has_email else None,
            email_as_sent=None,
            phone=phone if random.random() < 0.78 else None,
            full_name=name if random.random() < 0.98 else None,
            metadata=_metadata(random, group.country, group.language) if random.random() < 0.95 else None,
            external_id=f"C-{number}" if random.random() < 0.92 else None,
            total_orders=orders,
            total_order_value=sum((order.amount for order in bought), Decimal(0)),
            last_order_at=bought[-1].placed_at if bought else None,
            created_at=moment,
            updated_at=moment,
        )
        yield Person(row, bought)


def _order(random: Random, consumer_id: str, first: datetime, index: int) -> Order:
    moment = first + timedelta(hours=index)
    milliseconds = (moment - EPOCH) // timedelta(milliseconds=1)
    number = ULID.from_int(milliseconds << 80 | random.getrandbits(80))
    return Order(f"ord_{number}", consumer_id, Decimal(random.randrange(500, 30_000)) / 100, moment)


def _ascii(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name.lower())
    return "".join(letter for letter in letters if letter.isascii() and letter.isalnum()) or "x"


def _metadata(random: Random, country: str, language: str) -> str:
    metadata: dict[str, Any] = {
        "country": country,
        "language": language,
        "marketingConsent": random.random() < 0.6,
        "source": random.choice(("web", "app", "store", "import", "referral")),
    }
    if random.random() < 0.5:
        metadata["tags"] = random.sample(TAGS, random.randint(1, 3))
    if random.random() < 0.3:
        points = int(random.expovariate(1 / 900))
        tier = "gold" if points >= 2_000 else "silver" if points >= 800 else "bronze"
        metadata["loyalty"] = {"tier": tier, "points": points}
    return msgspec.json.encode(metadata).decode()


def fill(address: str, environment_id: int, audience_id: str, size: int) -> None:
    """Insert `size` consumers, every tenth as a member of the audience."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        parts = [
            pool.submit(_fill, address, environment_id, audience_id, first, size) for first in range(0, size, CHUNK)
        ]
        for part in parts:
            part.result()


def _fill(address: str, environment_id: int, audience_id: str, first: int, size: int) -> None:
    people_ = list(people(environment_id, first, min(first + CHUNK, size), size))
    with psycopg.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        with cursor.copy(COPY_CONSUMERS.encode()) as copy:
            for person in people_:
                copy.write_row([getattr(person.row, name) for name in ConsumerRow._fields])
        with cursor.copy(COPY_ORDERS.encode()) as copy:
            for order in (order for person in people_ for order in person.orders):
                columns = (environment_id, "USD", order.amount, order.placed_at, order.placed_at)
                copy.write_row((*order, *columns))
        with cursor.copy(COPY_MEMBERS.encode()) as copy:
            for person in people_[::MEMBERS]:
                copy.write_row((environment_id, audience_id, person.row.id))
