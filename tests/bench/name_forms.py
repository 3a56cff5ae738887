"""Consumers with names to be found in another form than stored, for the measurement of relevance.

Each consumer has a name that no generated consumer has, and a query: joined, split or elided (`joined`), in another
spelling (`spelled`), or the given name alone of a name without a space (`given`).
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random

from infra.local.sample.consumers import Consumer, ulid
from tests.relevance.golden import Case

SEED = 20_240_104
START = datetime(2024, 6, 1, tzinfo=UTC)
NUMBER = 200
"""Consumers of each kind."""
PARTICLES = ("De", "Van der", "Mc", "O'", "D'", "La", "El", "Al-", "St.", "Le", "Von", "Di", "Ben", "Abu", "Mac")
GIVEN = ("Mary", "Jean", "Anne", "Karl", "Juan", "Min", "Hans", "Lou", "Eva", "Ji")
SYLLABLES = ("bra", "ckel", "dor", "fen", "gar", "hul", "kin", "lom", "mur", "nost", "pel", "ril", "stan", "tov", "wex")
UMLAUTS = (("ö", "oe"), ("ä", "ae"), ("ü", "ue"), ("ø", "oe"), ("å", "aa"))
KOREAN = (
    ("김", "이", "박", "최", "정", "강", "조", "남궁", "황보", "제갈"),
    "민서예지준현우수진하연재윤아원태성혜경빈",
)
CHINESE = (("王", "李", "张", "刘", "陈", "杨", "赵", "欧阳", "司马"), "子涵梓轩浩宇欣怡雨泽诗琪俊杰思远佳豪")
JAPANESE = (("田中", "佐藤", "山本", "長谷川", "林", "佐々木", "小早川", "森"), "翔陽菜大輝結衣悠斗美咲健陸葵蓮楓")


def name_forms() -> Iterator[tuple[str, Case]]:
    """Yield a kind, and the case with the consumer, the same at every call."""
    random = Random(SEED)
    names = [*_joined(random), *_spelled(random), *_given(random)]
    for number, (kind, name, text) in enumerate(names):
        moment = START + timedelta(seconds=number)
        yield kind, Case(text, Consumer(ulid(random, "cons_", moment), moment, None, None, name, None, None))


def _joined(random: Random) -> Iterator[tuple[str, str, str]]:
    for number in range(NUMBER):
        family = _word(random)
        if number % 3:
            particle = random.choice(PARTICLES)
            stored = f"{particle}{family.title()}" if particle[-1] in "'-" else f"{particle} {family.title()}"
            bare = "".join(letter for letter in particle.lower() if letter.isalpha())
            text = bare + family
            typed = random.choice([text, f"{bare} {family}", *([family] if particle[-1] == "'" else [])])
            stored, typed = (stored, typed) if number % 2 else (text.title(), f"{particle.lower()} {family}")
        else:
            first, second = random.choice(GIVEN), _word(random).title()
            stored = f"{first}{random.choice([' ', '-'])}{second} {family.title()}"
            typed = random.choice([f"{first}{second}", f"{first} {second}", f"{first}-{second}"]).lower()
        yield "joined", stored, typed


def _spelled(random: Random) -> Iterator[tuple[str, str, str]]:
    for number in range(NUMBER):
        letter, spelled = random.choice(UMLAUTS)
        word = _word(random)
        place = random.randrange(1, len(word))
        forms = [f"{word[:place]}{part}{word[place:]}".title() for part in (letter, spelled)]
        yield "spelled", f"Ann {forms[number % 2]}", forms[1 - number % 2].lower()


def _given(random: Random) -> Iterator[tuple[str, str, str]]:
    """Yield each given name once, so that the consumer can be among the first ten hits."""
    used: set[str] = set()
    populations: Sequence[tuple[Sequence[str], str]] = (KOREAN, CHINESE, JAPANESE)
    while len(used) < NUMBER:
        families, letters = populations[len(used) % 3]
        given = "".join(random.sample(letters, 2))
        if given not in used:
            used.add(given)
            yield "given", random.choice(families) + given, given


def _word(random: Random) -> str:
    return "".join(random.sample(SYLLABLES, 3))
