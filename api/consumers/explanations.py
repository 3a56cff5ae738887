"""The explanation of a match of `q`: `matchedOn` (contract.md §2 "Matching").

Pure functions: `explanation_clauses` adds named clauses to a query, and `explanations` reads the names that a row
satisfies.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

import msgspec

from api.consumers import words
from api.consumers.matching import (
    Field,
    FieldClause,
    form_clauses,
    prefix_clauses,
    whole_name_clause,
    whole_name_match,
    whole_value_clauses,
    word_clauses,
)
from api.consumers.words import Query
from infra.filters.clauses import Clause

Kind = Literal["exact", "word", "prefix", "typo"]
ASKED_KINDS: tuple[Kind, ...] = ("exact", "word", "prefix")


class Match(msgspec.Struct, frozen=True):
    """A part of the query found in a field.

    `exact`: the part is the whole value of the field. `word`: a whole word of the field, possibly joined, split or in
    another spelling. `prefix`: the start of a word, or the start or end of a phone number. `typo`: a word with one or
    two wrong letters and without any other match.
    """

    field: Field
    """The field that matches."""
    kind: Kind
    """How the field matches: as a whole, by a word, by the start of a word, or with a typo."""
    text: str
    """The word of the query that matches."""

    example: ClassVar[dict[str, Any]] = {"field": "fullName", "kind": "prefix", "text": "jose"}


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
    query = words.read(text)
    if query.text in matched:
        return []
    units = [unit for unit in query.units if " ".join(unit) not in matched]
    return list(dict.fromkeys(word for unit in units for word in unit if word not in matched))


@lru_cache(maxsize=64)
def _possible_matches(text: str, region: str | None) -> Sequence[tuple[Match, Sequence[Clause]]]:
    """Return all possible matches with their clauses, part by part of the text, better kinds first."""
    return [
        (Match(field, kind, part), clauses)
        for part, kinds in _parts(text).items()
        for kind in kinds
        for field, clauses in _by_field(words.read(text), kind, part, region).items()
    ]


def _parts(text: str) -> dict[str, tuple[Kind, ...]]:
    """Return the whole text, each unit and each word, with the kinds of matches asked of the index for each."""
    query = words.read(text)
    parts = [word for unit in query.units for word in dict.fromkeys([" ".join(unit), *unit])]
    return {query.text: ASKED_KINDS[:1]} | dict.fromkeys(parts, ASKED_KINDS)


def _by_field(query: Query, kind: Kind, text: str, region: str | None) -> dict[Field, list[Clause]]:
    clauses: dict[Field, list[Clause]] = {}
    for field, clause in _of_kind(query, kind, text, region):
        clauses.setdefault(field, []).append(clause)
    return clauses


def _of_kind(query: Query, kind: Kind, text: str, region: str | None) -> Iterator[FieldClause]:
    match kind:
        case "exact":
            if text == query.text and query.name:
                yield FieldClause("fullName", whole_name_clause(query))
            elif query.name:
                yield FieldClause("fullName", whole_name_match(text))
            yield from whole_value_clauses(text, region)
        case "word":
            yield from word_clauses(query, text)
            yield from form_clauses(query, text)
        case "prefix":
            yield from prefix_clauses(query, text, region)
