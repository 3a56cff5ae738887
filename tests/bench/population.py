"""Consumers by the million: made up from a number alone, and put into an index by several processes.

What reads look at is the index, so that is what is filled; the rows' way through PostgreSQL is `tests.bench.drain`'s.
"""

import unicodedata
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
from opensearchpy import OpenSearch
from ulid import ULID

from indexer import bulk
from indexer.bulk import Written
from infra import documents
from infra.documents import ConsumerRow
from infra.opensearch import TextSerializer
from infra.sample.people import PEOPLE
from infra.settings import Settings

EPOCH, START, SPAN = datetime(1970, 1, 1, tzinfo=UTC), datetime(2024, 11, 1, tzinfo=UTC), timedelta(days=730)
CHUNK = 2_000
AT_ONCE, EVERY = 500, 10
"""Every tenth 500 came in one batch, so at one moment."""
MEMBERS = 10
"""Every tenth is a member of the stored audience."""
MOST_ORDERS = 40
DOMAINS = ("example.com", "example.net", "example.org")
TAGS = ("newsletter", "vip", "wholesale", "beta", "returns-often", "gift-buyer", "loyalty")
WEIGHTS = [group.weight for group in PEOPLE]


def rows(environment_id: int, first: int, end: int, size: int) -> Iterator[ConsumerRow]:
    """The consumers of these numbers, of `size` in all."""
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
        yield ConsumerRow(
            id=f"cons_{ULID.from_int(milliseconds << 80 | number << 40 | random.getrandbits(40))}",
            environment_id=environment_id,
            version=1,
            email=email if has_email else None,
            email_key=email.lower() if has_email else None,
            phone=phone if random.random() < 0.78 else None,
            full_name=name if random.random() < 0.98 else None,
            metadata=_metadata(random, group.country, group.language) if random.random() < 0.95 else None,
            external_id=f"C-{number}" if random.random() < 0.92 else None,
            total_orders=orders,
            total_order_value=sum((Decimal(random.randrange(500, 30_000)) / 100 for _ in range(orders)), Decimal(0)),
            last_order_at=ordered if orders else None,
            created_at=moment,
            updated_at=moment,
        )


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


def fill(settings: Settings, index: str, environment_id: int, audience_id: str, size: int) -> None:
    """Put `size` consumers into the index, unrefreshed, with two processes."""
    with ProcessPoolExecutor(2) as pool:
        parts = [
            pool.submit(_fill, settings, index, environment_id, audience_id, first, size)
            for first in range(0, size, CHUNK)
        ]
        for part in parts:
            part.result()


def _patient(settings: Settings) -> OpenSearch:
    """For the drain ten seconds are too long; a million documents at once may make a merge of minutes."""
    return OpenSearch(settings.opensearch_url, timeout=300, max_retries=0, serializer=TextSerializer())


_clients: dict[str, OpenSearch] = {}


def _fill(settings: Settings, index: str, environment_id: int, audience_id: str, first: int, size: int) -> None:
    client = _clients.setdefault(index, _patient(settings))
    batch = [
        Written(environment_id, row.id, row.version, documents.document(row, audience))
        for number, row in enumerate(rows(environment_id, first, min(first + CHUNK, size), size))
        for audience in [(audience_id,) if number % MEMBERS == 0 else ()]
    ]
    items = bulk.write(client, documents.write_alias(index), batch)
    assert all(item.is_written for item in items), next(item for item in items if not item.is_written)
