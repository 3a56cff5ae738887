"""Generate sample consumers, the same at every call."""

import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

from ulid import ULID

from infra.local.sample.people import PEOPLE, Name, People

SEED = 20_240_601
COUNT = 5_000
START, END = datetime(2024, 11, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
"""All sample data lies in these two years; they are fixed, so that the data is the same every day."""

DOMAINS = ("example.com", "example.net", "example.org")
"""Reserved by RFC 2606: no mail is ever delivered."""
TAGS = ("newsletter", "vip", "wholesale", "beta", "returns-often", "gift-buyer", "loyalty")
# Letters without a decomposition into a Latin letter and a mark.
ASCII = str.maketrans({"ß": "ss", "ø": "o", "ł": "l", "đ": "d", "ı": "i", "æ": "ae", "þ": "th", "ð": "d"})


class Consumer(NamedTuple):
    """A row of `consumers`, without the environment."""

    id: str
    created_at: datetime
    email: str | None
    phone: str | None
    full_name: str | None
    metadata: dict[str, Any] | None
    external_id: str | None


class Person(NamedTuple):
    consumer: Consumer
    country: str


def persons() -> Iterator[Person]:
    """Yield the consumers and their countries, in order of time and id."""
    random = Random(SEED)  # noqa: S311 (nothing secret)
    people = random.choices(PEOPLE, [group.weight for group in PEOPLE], k=COUNT)
    addresses: set[str] = set()
    for number, (group, moment) in enumerate(zip(people, _moments(random), strict=True)):
        given, family, name = _name(random, group)
        yield Person(
            Consumer(
                id=ulid(random, "cons_", moment),
                created_at=moment,
                email=_email(random, given, family, addresses) if chance(random, 0.94) else None,
                phone=_phone(random, group) if chance(random, 0.78) else None,
                full_name=name if chance(random, 0.98) else None,
                metadata=_metadata(random, group) if chance(random, 0.95) else None,
                external_id=f"C-{100_000 + number}" if chance(random, 0.92) else None,
            ),
            group.country,
        )


def chance(random: Random, share: float) -> bool:
    return random.random() < share


def ulid(random: Random, prefix: str, moment: datetime) -> str:
    """Return an id with the timestamp of that moment."""
    milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return f"{prefix}{ULID.from_int(milliseconds << 80 | random.getrandbits(80))}"


def _moments(random: Random) -> list[datetime]:
    """Return the times of creation in order, with growing density."""
    span = (END - START) // timedelta(milliseconds=1)
    return sorted(START + timedelta(milliseconds=int(span * random.random() ** 0.6)) for _ in range(COUNT))


def _name(random: Random, group: People) -> tuple[Name, Name, str]:
    given, family, family2 = random.choice(group.given), random.choice(group.family), random.choice(group.family)
    text = group.form.format(
        given=given.text, family=family.text, family2=family2.text, initial=random.choice("ABCDEFGHJKLMNPRSTW")
    )
    return given, family, text


def _email(random: Random, given: Name, family: Name, taken: set[str]) -> str:
    first, last = _ascii(given), _ascii(family)
    local = random.choice((f"{first}.{last}", f"{first[0]}{last}", f"{first}_{last}", f"{first}+shop", last, first))
    domain = random.choice(DOMAINS)
    address, number = f"{local}@{domain}", 1
    while address in taken:
        number += random.randint(1, 9)
        address = f"{local}{number}@{domain}"
    taken.add(address)
    # Some people write their address with capitals.
    return f"{local.title()}@{domain}" if number == 1 and chance(random, 0.03) else address


def _ascii(name: Name) -> str:
    letters = unicodedata.normalize("NFKD", name.latin.lower().translate(ASCII))
    return "".join(letter for letter in letters if letter.isascii() and (letter.isalnum() or letter == "-"))


def _phone(random: Random, group: People) -> str:
    digits = "".join(str(random.randrange(10)) if character == "#" else character for character in group.phone)
    # E.164 has no extensions, so a number with an extension is stored as sent.
    return digits if chance(random, 0.98) else f"{digits} x{random.randrange(10, 100)}"


def _metadata(random: Random, group: People) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "country": group.country,
        "language": group.language,
        "marketingConsent": chance(random, 0.6),
        "source": random.choice(("web", "app", "store", "import", "referral")),
    }
    if chance(random, 0.5):
        metadata["tags"] = random.sample(TAGS, random.randint(1, 3))
    if chance(random, 0.3):
        points = int(random.expovariate(1 / 900))
        metadata["loyalty"] = {"tier": _tier(points), "points": points}
    return metadata


def _tier(points: int) -> str:
    return next(tier for least, tier in ((2_000, "gold"), (800, "silver"), (0, "bronze")) if points >= least)
