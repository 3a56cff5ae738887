"""What `search` and `q` match (contract.md §2 "Matching"). Pure functions: text in, clauses out.

Scores are constants, one a tier, so they do not move between refreshes and replicas.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Literal, NamedTuple, get_args

import msgspec
import phonenumbers

from infra import fields
from infra.filters.clauses import Clause

Field = Literal["email", "phone", "fullName", "externalId"]
Kind = Literal["exact", "word", "prefix", "typo"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_TEXT = 300
MAX_WORDS = 32
PART_BREAKS = re.compile(r"[@._+\-]+")
AROUND = "<>()[]{}\"'“”«»,;:"
"""What stands around an address that is copied, as in `Ann <ann@example.com>,`."""
DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
PHONE_WORD = re.compile(r"[0-9+\-.()/x#]*[0-9+()][0-9+\-.()/x#]*")
PHONE_TEXT = re.compile(r"[0-9 +\-.()/x#]*")
PHONE_DIGITS, PHONE_LENGTH = 3, 40


class Found(NamedTuple):
    """One way to match: the field it is found in."""

    field: Field
    clause: Clause


class Match(msgspec.Struct, frozen=True):
    """What of the question was found in a field, and how: `exact` is the whole field."""

    field: Field
    kind: Kind
    text: str


def filtering(text: str, region: str | None) -> Clause:
    """The clause of `search`: what it finds is not ranked, and nothing is guessed."""
    return _any([_identity(text, region), _every(_units(text), _word_start, region)])


def ranking(text: str, region: str | None) -> Clause:
    """The clause of `q`: each row is scored by the best tier it reaches."""
    units = _units(text)
    tiers = [
        _every(units, _word_mistyped, region),
        _every(units, _word_start, region),
        _every(units, _whole_word, region),
        {"match": {"fullName.whole": text}},
        _identity(text, region),
    ]
    scored = [{"constant_score": {"filter": tier, "boost": rank}} for rank, tier in enumerate(tiers, start=1)]
    return {"dis_max": {"queries": scored}}


def explaining(text: str, region: str | None) -> list[Clause]:
    """Named clauses that tell how a row matches; `explained` reads the names of those that did."""
    return [
        {"bool": {"should": list(clauses), "_name": str(number)}}
        for number, (_, clauses) in enumerate(_explanations(text, region))
    ]


def explained(text: str, region: str | None, names: Iterable[str]) -> list[Match]:
    """How a row matches: for every part of the text, and each field it is found in, the best kind."""
    known = _explanations(text, region)
    best: dict[tuple[str, Field], Match] = {}
    for number in sorted(map(int, names)):
        match, _ = known[number]
        best.setdefault((match.text, match.field), match)
    return list(best.values())


@lru_cache(maxsize=64)
def _explanations(text: str, region: str | None) -> Sequence[tuple[Match, Sequence[Clause]]]:
    """Part by part of the text, and of each the better kinds first."""
    return [
        (Match(field, kind, part), clauses)
        for part, kinds in _parts(text).items()
        for kind in kinds
        for field, clauses in _by_field(kind, part, region).items()
    ]


def _parts(text: str) -> dict[str, tuple[Kind, ...]]:
    """The whole, each word, and what may be one number of several words; with the kinds of matches each can have."""
    units = _units(text)
    parts = [word for unit in units for word in dict.fromkeys([" ".join(unit), *unit])]
    return {text: KINDS[:1]} | dict.fromkeys(parts, KINDS)


def _by_field(kind: Kind, text: str, region: str | None) -> dict[Field, list[Clause]]:
    found: dict[Field, list[Clause]] = {}
    for field, clause in _ways(kind, text, region):
        found.setdefault(field, []).append(clause)
    return found


def _ways(kind: Kind, text: str, region: str | None) -> Iterator[Found]:
    match kind:
        case "exact":
            yield Found("fullName", {"match": {"fullName.whole": text}})
            yield from _exactly(text, region)
        case "word":
            yield from _wholly(text)
        case "prefix":
            yield from _beginning(text, region)
        case "typo":
            yield from _mistyped(text)


def _any(clauses: list[Clause]) -> Clause:
    return {"bool": {"should": clauses}}


def _all(clauses: list[Clause]) -> Clause:
    return clauses[0] if len(clauses) == 1 else {"bool": {"filter": clauses}}


def _units(text: str) -> list[list[str]]:
    """The words one by one; but those in a row that may be one telephone number, typed with spaces, together."""
    runs = [(phone, list(run)) for phone, run in groupby(words(text), lambda word: bool(PHONE_WORD.fullmatch(word)))]
    return [unit for phone, run in runs for unit in ([run] if phone else [[word] for word in run])]


def words(text: str) -> list[str]:
    """The words of a query, of any width. Punctuation by itself (`Smith & Sons`) is no word, unless it is all."""
    given = _typed(text).split() or [text]
    return [word for word in given if not all(map(_is_punctuation, word))] or given


def _typed(text: str) -> str:
    """As a keyboard gives it: of usual width, one kind of digits and of dashes, no marks of direction, which numbers
    copied from elsewhere carry. An acute accent by itself is meant for an apostrophe.
    """
    if text.isascii():
        return text
    usual = DIRECTION.sub("", unicodedata.normalize("NFKC", text.replace("´", "'")))
    return "".join(map(_typed_character, usual))


def _typed_character(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return "-" if unicodedata.category(character) == "Pd" else character


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] == "P" or unicodedata.category(character) in {"Sm", "Sc", "Sk"}


def _every(units: list[list[str]], match: Callable[[str, str | None], Clause], region: str | None) -> Clause:
    """Every unit matches: as one number, or word by word."""
    clauses = []
    for unit in units:
        one_by_one = _all([match(word, region) for word in unit])
        clauses.append(one_by_one if len(unit) == 1 else _any([match(" ".join(unit), region), one_by_one]))
    return _all(clauses)


def _identity(text: str, region: str | None) -> Clause:
    """The whole text is an e-mail address, a telephone number or an external id."""
    return _any(_clauses(_exactly(text, region)))


def _whole_word(word: str, region: str | None) -> Clause:
    return _any(_clauses([*_wholly(word), *_exactly(word, region)]))


def _word_start(word: str, region: str | None) -> Clause:
    return _any(_clauses([*_beginning(word, region), _external_id(word)]))


def _word_mistyped(word: str, region: str | None) -> Clause:
    return _any([_word_start(word, region), *_clauses(_mistyped(word))])


def _clauses(found: Iterable[Found]) -> list[Clause]:
    return [each.clause for each in found]


def _exactly(text: str, region: str | None) -> Iterator[Found]:
    yield Found("email", {"match": {"email.whole": _typed(text).strip(AROUND)}})
    yield _external_id(text)
    yield from _phone("phoneDigits", phone_forms(text, region))


def _external_id(text: str) -> Found:
    return Found("externalId", {"term": {"externalId.folded": text}})


def _wholly(word: str) -> Iterator[Found]:
    yield Found("fullName", {"match": {"fullName": {"query": word, "operator": "and"}}})
    yield from _in_address(word, "email.parts")


def _beginning(word: str, region: str | None) -> Iterator[Found]:
    """The start of a word of the name, of a part of the address; the start or the end of the number."""
    yield Found("fullName", {"match": {"fullName.starts": {"query": word, "operator": "and"}}})
    yield Found("fullName", {"match": {"nameRuns": {"query": word, "operator": "and"}}})
    yield from _in_address(word, "email.starts")
    wanted = phone_forms(word, region)
    yield from _phone("phoneDigits.starts", wanted)
    yield from _phone("phoneReversed", [form[::-1] for form in wanted])


def _mistyped(word: str) -> Iterator[Found]:
    """A word of the name with one wrong letter in 4 to 7, two from 8 on, never the first."""
    typos = {"fuzziness": "AUTO:4,8", "prefix_length": 1, "fuzzy_rewrite": "constant_score"}
    yield Found("fullName", {"match": {"fullName": {"query": word, "operator": "and", **typos}}})


def _in_address(word: str, last: str) -> Iterator[Found]:
    """Neighbouring parts of an e-mail address: whole ones, and the last as `last` has it (whole, or its start)."""
    parts = [part for part in PART_BREAKS.split(word.strip(AROUND)) if part]
    if len(parts) == 1:
        yield Found("email", {"match": {last: parts[0]}})
    elif parts:
        intervals = [{"match": {"query": part}} for part in parts[:-1]]
        intervals.append({"match": {"query": parts[-1], "use_field": last}})
        ordered = {"all_of": {"ordered": True, "max_gaps": 0, "intervals": intervals}}
        yield Found("email", {"intervals": {"email.parts": ordered}})


def _phone(target: str, digits: Sequence[str]) -> Iterator[Found]:
    """Digits of a number, as they may be written, against a field of digits."""
    if digits:
        yield Found("phone", {"terms": {target: digits}})


def phone_forms(text: str, region: str | None) -> list[str]:
    """The digits that a number may be stored with; none if it is no number."""
    text = _typed(text)
    if len(text) > PHONE_LENGTH or not PHONE_TEXT.fullmatch(text):
        return []
    digits = "".join(filter(str.isdigit, text))
    forms = {digits, digits.removeprefix("00")}
    if parsed := fields.parse_phone(text, region):
        forms.add(f"{parsed.country_code}{phonenumbers.national_significant_number(parsed)}")
    return sorted(form for form in forms if len(form) >= PHONE_DIGITS)
