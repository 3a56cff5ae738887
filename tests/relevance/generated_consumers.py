"""Generate 100,000 consumers, the same at every call, to hide the golden consumers among.

Names combine names of the sample data and words of real names (names.txt). About 1 % of the consumers share a rare
word of the name with a golden consumer, so that matching one word of two is not enough.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random

from infra.local.sample.consumers import ASCII, Consumer, chance, ulid
from infra.local.sample.people import PEOPLE, People

COUNT = 100_000
SEED = 20_241_101
START = datetime(2025, 1, 1, tzinfo=UTC)
DOMAINS = ("example.com", "example.net", "example.org", "mail.example.com", "post.example.net", "shop.example.org")
COUNTRY_DIGITS = 6
"""The digits kept of a phone number: about country and range; the other digits are random."""


def generated_consumers(golden: Sequence[Consumer]) -> Iterator[Consumer]:
    """Yield the consumers by time and id; all are newer than the golden consumers, so they win ties."""
    random = Random(SEED)
    golden_words = list(dict.fromkeys(word for one in golden for word in (one.full_name or "").split()))
    addresses = {one.email for one in golden if one.email}
    for number, group in enumerate(random.choices(PEOPLE, [group.weight for group in PEOPLE], k=COUNT)):
        name, latin = _name(random, group, golden_words)
        moment = START + timedelta(seconds=number)
        yield Consumer(
            id=ulid(random, "cons_", moment),
            created_at=moment,
            email=_email(random, latin, addresses) if chance(random, 0.94) else None,
            phone=_phone(random, group) if chance(random, 0.8) else None,
            full_name=name,
            metadata=None,
            external_id=f"C-{100_000 + number}" if chance(random, 0.9) else None,
        )


def _name(random: Random, group: People, golden_words: Sequence[str]) -> tuple[str, list[str]]:
    given, family, second = random.choice(group.given), random.choice(group.family), random.choice(group.family)
    script = _script(given.text)
    parts = [given.text, family.text, second.text]
    if chance(random, 0.5) and (words := _words().get(script)):
        parts[1] = random.choice(words)
    if chance(random, 0.02) and _script(word := random.choice(golden_words)) == script:
        parts[random.randrange(2)] = word
    name = group.form.format(given=parts[0], family=parts[1], family2=parts[2], initial=random.choice("ABCDEHJKLM"))
    # A name in another script has the Latin form of the sample data.
    return name, [_ascii(parts[0]) or _ascii(given.latin), _ascii(parts[1]) or _ascii(family.latin)]


def _ascii(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.lower().translate(ASCII))
    return "".join(letter for letter in letters if letter.isascii() and letter.isalnum())


def _email(random: Random, latin: list[str], used: set[str]) -> str:
    first, last = latin
    local = random.choice((f"{first}.{last}", f"{first[0]}{last}", f"{first}_{last}", f"{first}+shop", last, first))
    domain = random.choice(DOMAINS)
    address = f"{local}@{domain}"
    while address in used:
        address = f"{local}{random.randrange(10_000)}@{domain}"
    used.add(address)
    return address


def _phone(random: Random, group: People) -> str:
    kept = group.phone[:COUNTRY_DIGITS]
    return kept + "".join(str(random.randrange(10)) for _ in group.phone[COUNTRY_DIGITS:])


@cache
def _words() -> dict[str, list[str]]:
    records = Path(__file__).with_name("names.txt").read_text("utf-8").split("\n\n")[1:]
    return {script: words for script, *words in map(str.split, records)}


@cache
def _script(text: str) -> str:
    return unicodedata.name(text[0]).split()[0]
