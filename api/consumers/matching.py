"""Clauses for `search` and `q`, and the explanation of a match (contract.md §2 "Matching").

Pure functions: text in, clauses out. Each tier has a constant score, so scores do not move between refreshes and
replicas.

The text is split into words. Consecutive words that may form a phone number with spaces are a unit; any other
word is a unit by itself. Every unit must match.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec
import phonenumbers

from infra import fields
from infra.filters.clauses import Clause
from infra.filters.costs import cost

Field = Literal["email", "phone", "fullName", "externalId"]
Kind = Literal["exact", "word", "prefix", "typo"]
ASKED_KINDS: tuple[Kind, ...] = ("exact", "word", "prefix")

MAX_TEXT = 300
MAX_WORDS = 32
PART_SEPARATORS = re.compile(r"[@._+\-]+")
ADDRESS_QUOTES = "<>()[]{}\"'“”«»,;:"
"""Characters around a copied address, as in `Ann <ann@example.com>,`."""
DIRECTION_MARKS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
PHONE_WORD = re.compile(r"[0-9+\-.()/x#]*[0-9+()][0-9+\-.()/x#]*")
PHONE_TEXT = re.compile(r"[0-9 +\-.()/x#]*")
MIN_PHONE_DIGITS, MAX_PHONE_LENGTH = 3, 40
TYPO_WORDS, TYPO_LETTERS = 5, 24
"""Typos are tolerated in the first words of a query, and in words of at most so many letters: OpenSearch needs up to
6 ms for such a word."""
MAX_SPELLINGS = 500
"""Indexed names that are tried for a word with a typo, the most similar first."""
MIN_TYPO_LETTERS = 4


class FieldClause(NamedTuple):
    """A clause, and the searched field."""

    field: Field
    clause: Clause


class Match(msgspec.Struct, frozen=True):
    """A part of the query found in a field.

    `exact`: the part is the whole value of the field. `word`: a whole word of the field. `prefix`: the start of a
    word, or the start or end of a phone number. `typo`: a word with one or two wrong letters and
    without any other match.
    """

    field: Field
    """The field that matches."""
    kind: Kind
    """How the field matches: as a whole, by a word, by the start of a word, or with a typo."""
    text: str
    """The word of the query that matches."""

    example: ClassVar[dict[str, Any]] = {"field": "fullName", "kind": "prefix", "text": "jose"}


def filter_clause(text: str, region: str | None) -> Clause:
    """Return the clause of `search`: unranked and without typos."""
    return _any([_whole_value(text, region), _match_units(_units(text), _word_start, region)])


def ranking_clause(text: str, region: str | None, room: int) -> Clause:
    """Return the clause of `q`. A row's score is the number of the best tier reached.

    Args:
        text: the text of `q`.
        region: country of national phone numbers, as two letters.
        room: how many clauses the query may have besides its other parts.
    """
    units = _units(text)
    starts = _match_units(units, _word_start, region)
    exact = [
        _match_units(units, _whole_word, region),
        {"match": {"fullName.whole": text}},
        _whole_value(text, region),
    ]
    tolerant = _tolerant_words(units)
    spellings = _spellings(tolerant, room - 2 * cost(starts) - sum(map(cost, exact)))

    def word_or_typo(word: str, region: str | None) -> Clause:
        return _any([_word_start(word, region), *([_typo(word, spellings)] if word in tolerant else [])])

    tiers = [_match_units(units, word_or_typo, region), starts, *exact]
    scored = [{"constant_score": {"filter": tier, "boost": rank}} for rank, tier in enumerate(tiers, start=1)]
    return {"dis_max": {"queries": scored}}


def explanation_clauses(text: str, region: str | None) -> list[Clause]:
    """Return named clauses for all matches without typos; `explanations` reads the names of the satisfied clauses."""
    return [
        {"bool": {"should": list(clauses), "_name": str(number)}}
        for number, (_, clauses) in enumerate(_possible_matches(text, region))
    ]


def explanations(text: str, region: str | None, names: Iterable[str]) -> list[Match]:
    """Return the matches of a row: the best kind for every part of the text and every field with that part.

    Every word of `q` matches, so a word without any other match has a typo. No clause asks for typos: OpenSearch would
    build the automata of `ranking_clause` again, twice.

    Args:
        text: the text of `q`.
        region: as in `explanation_clauses`.
        names: of the clauses satisfied by the row.
    """
    possible = _possible_matches(text, region)
    best: dict[tuple[str, Field], Match] = {}
    for number in sorted(map(int, names)):
        match, _ = possible[number]
        best.setdefault((match.text, match.field), match)
    matched = {match.text for match in best.values()}
    typos = [Match("fullName", "typo", word) for word in _unmatched_words(text, matched)]
    positions = {part: position for position, part in enumerate(_parts(text))}
    return sorted([*best.values(), *typos], key=lambda match: positions[match.text])


def _unmatched_words(text: str, matched: Collection[str]) -> list[str]:
    """Return the words that belong to no matched part of the text."""
    if text in matched:
        return []
    units = [unit for unit in _units(text) if " ".join(unit) not in matched]
    return list(dict.fromkeys(word for unit in units for word in unit if word not in matched))


@lru_cache(maxsize=64)
def _possible_matches(text: str, region: str | None) -> Sequence[tuple[Match, Sequence[Clause]]]:
    """Return all possible matches with their clauses, part by part of the text, better kinds first."""
    return [
        (Match(field, kind, part), clauses)
        for part, kinds in _parts(text).items()
        for kind in kinds
        for field, clauses in _by_field(kind, part, region).items()
    ]


def _parts(text: str) -> dict[str, tuple[Kind, ...]]:
    """Return the whole text, each unit and each word, with the kinds of matches asked of the index for each."""
    units = _units(text)
    parts = [word for unit in units for word in dict.fromkeys([" ".join(unit), *unit])]
    return {text: ASKED_KINDS[:1]} | dict.fromkeys(parts, ASKED_KINDS)


def _by_field(kind: Kind, text: str, region: str | None) -> dict[Field, list[Clause]]:
    clauses: dict[Field, list[Clause]] = {}
    for field, clause in _of_kind(kind, text, region):
        clauses.setdefault(field, []).append(clause)
    return clauses


def _of_kind(kind: Kind, text: str, region: str | None) -> Iterator[FieldClause]:
    match kind:
        case "exact":
            yield FieldClause("fullName", {"match": {"fullName.whole": text}})
            yield from _exact_clauses(text, region)
        case "word":
            yield from _word_clauses(text)
        case "prefix":
            yield from _prefix_clauses(text, region)


def _any(clauses: list[Clause]) -> Clause:
    return {"bool": {"should": clauses}}


def _all(clauses: list[Clause]) -> Clause:
    return clauses[0] if len(clauses) == 1 else {"bool": {"filter": clauses}}


def _units(text: str) -> list[list[str]]:
    """Return the words of each unit (see the module's docstring), without repetitions."""
    runs = [(phone, list(run)) for phone, run in groupby(words(text), lambda word: bool(PHONE_WORD.fullmatch(word)))]
    units = [unit for phone, run in runs for unit in ([run] if phone else [[word] for word in run])]
    return list({tuple(unit): unit for unit in units}.values())


def _tolerant_words(units: Sequence[Sequence[str]]) -> Sequence[str]:
    """Return the words that may have typos."""
    distinct = dict.fromkeys(word for unit in units for word in unit)
    return [word for word in list(distinct)[:TYPO_WORDS] if len(word) <= TYPO_LETTERS]


def words(text: str) -> list[str]:
    """Split a query into words. Punctuation alone (`&` in `Smith & Sons`) is dropped, unless nothing else is left."""
    candidates = _normalized(text).split() or [text]
    return [word for word in candidates if not all(map(_is_punctuation, word))] or candidates


def _normalized(text: str) -> str:
    """Return the text as typed on a keyboard.

    Characters have usual width, digits are ASCII, dashes are hyphens. Direction marks (in copied phone
    numbers) are removed. A free-standing acute accent becomes an apostrophe.
    """
    if text.isascii():
        return text
    usual = DIRECTION_MARKS.sub("", unicodedata.normalize("NFKC", text.replace("´", "'")))
    return "".join(map(_normalized_character, usual))


def _normalized_character(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return "-" if unicodedata.category(character) == "Pd" else character


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] == "P" or unicodedata.category(character) in {"Sm", "Sc", "Sk"}


def _match_units(units: list[list[str]], match: Callable[[str, str | None], Clause], region: str | None) -> Clause:
    """Require a match of every unit, as a phone number or word by word."""
    clauses = []
    for unit in units:
        by_word = _all([match(word, region) for word in dict.fromkeys(unit)])
        clauses.append(by_word if len(unit) == 1 else _any([match(" ".join(unit), region), by_word]))
    return _all(clauses)


def _whole_value(text: str, region: str | None) -> Clause:
    """Match if the whole text is the e-mail address, the phone number or the external id."""
    return _any(_clauses(_exact_clauses(text, region)))


def _whole_word(word: str, region: str | None) -> Clause:
    return _any(_clauses([*_word_clauses(word), *_exact_clauses(word, region)]))


def _word_start(word: str, region: str | None) -> Clause:
    return _any(_clauses([*_prefix_clauses(word, region), _external_id(word)]))


def _clauses(field_clauses: Iterable[FieldClause]) -> list[Clause]:
    return [field_clause.clause for field_clause in field_clauses]


def _exact_clauses(text: str, region: str | None) -> Iterator[FieldClause]:
    yield FieldClause("email", {"match": {"email.whole": _normalized(text).strip(ADDRESS_QUOTES)}})
    yield _external_id(text)
    yield from _phone("phoneDigits", phone_forms(text, region))


def _external_id(text: str) -> FieldClause:
    return FieldClause("externalId", {"term": {"externalId.folded": text}})


def _word_clauses(word: str) -> Iterator[FieldClause]:
    yield FieldClause("fullName", {"match": {"fullName": {"query": word, "operator": "and"}}})
    yield from _address_parts(word, "email.parts")


def _prefix_clauses(word: str, region: str | None) -> Iterator[FieldClause]:
    """Match the start of a word of the name or of a part of the address, or the start or end of the phone number."""
    yield FieldClause("fullName", {"match": {"fullName.starts": {"query": word, "operator": "and"}}})
    yield FieldClause("fullName", {"match": {"nameRuns": {"query": word, "operator": "and"}}})
    yield from _address_parts(word, "email.starts")
    forms = phone_forms(word, region)
    yield from _phone("phoneDigits.starts", forms)
    yield from _phone("phoneReversed", [form[::-1] for form in forms])


def _typo(word: str, spellings: int) -> Clause:
    """Match a word of the name with one wrong letter in 4 to 7 letters, or two from 8 on; the first must be right.

    The rewrite `top_terms` makes the automata of a word once. `constant_score` makes them again for every segment.
    """
    typos = {"fuzziness": "AUTO:4,8", "prefix_length": 1, "fuzzy_rewrite": f"top_terms_boost_{spellings}"}
    return {"match": {"fullName": {"query": word, "operator": "and", **typos}}}


def _spellings(words: Sequence[str], room: int) -> int:
    """Return the spellings to try for each name in the words. Every spelling is a clause.

    OpenSearch may split a word into several names, such as `Ann-Marie`.
    """
    names = sum(max(1, (len(word) + 1) // (MIN_TYPO_LETTERS + 1)) for word in words)
    return max(1, min(MAX_SPELLINGS, room // max(1, names)))


def _address_parts(word: str, last: str) -> Iterator[FieldClause]:
    """Match consecutive parts of the e-mail address. The sub-field `last` decides whether the last part matches whole
    parts or their starts; the parts before must be whole.
    """
    parts = [part for part in PART_SEPARATORS.split(word.strip(ADDRESS_QUOTES)) if part]
    if len(parts) == 1:
        yield FieldClause("email", {"match": {last: parts[0]}})
    elif parts:
        intervals = [{"match": {"query": part}} for part in parts[:-1]]
        intervals.append({"match": {"query": parts[-1], "use_field": last}})
        ordered = {"all_of": {"ordered": True, "max_gaps": 0, "intervals": intervals}}
        yield FieldClause("email", {"intervals": {"email.parts": ordered}})


def _phone(target: str, forms: Sequence[str]) -> Iterator[FieldClause]:
    if forms:
        yield FieldClause("phone", {"terms": {target: forms}})


def phone_forms(text: str, region: str | None) -> list[str]:
    """Return the possible indexed forms of a phone number, as digits; an empty list for any other text."""
    text = _normalized(text)
    if len(text) > MAX_PHONE_LENGTH or not PHONE_TEXT.fullmatch(text):
        return []
    digits = "".join(filter(str.isdigit, text))
    forms = {digits, digits.removeprefix("00")}
    if parsed := fields.parse_phone(text, region):
        forms.add(f"{parsed.country_code}{phonenumbers.national_significant_number(parsed)}")
    return sorted(form for form in forms if len(form) >= MIN_PHONE_DIGITS)
