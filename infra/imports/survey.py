"""Read a whole file before any row is stored: how its numbers are written, and which rows contradict each other."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from infra import emails
from infra.imports import amounts, conflicts, exported, ids
from infra.imports.columns import Column, Columns, texts_reader
from infra.imports.conflicts import RowKeys
from infra.imports.rows import Record

ID_FIELDS = ("externalId", "consumerExternalId")


class Survey(NamedTuple):
    columns: Columns
    """With the notation of the numbers in the file."""
    rejects: dict[int, str]
    """Line of a row → why the row contradicts other rows."""


def survey(records: Iterable[Record], columns: Columns, *, has_people: bool) -> Survey:
    """Survey a file.

    Args:
        records: all records of the file.
        columns: of the file.
        has_people: whether `externalId` and `email` identify a person, hence must agree in all rows.
    """
    notation = _Notation(columns)
    with conflicts.opened() as found:
        found.read(_keys(records, columns, notation))
        surveyed = notation.completed(columns)
        external_id = "external_id"
        if "externalId" in surveyed.decimal_ids:
            external_id = "number"
            found.find_notations()
        if has_people:
            found.find_people(external_id)
        if columns.continued_by:
            found.find_scattered(external_id)
        return Survey(surveyed, found.reasons)


def survey_notation(records: Iterable[Record], columns: Columns) -> Columns:
    """Return the columns with the notation of the file. Reads only as many records as decide it."""
    notation = _Notation(columns)
    for _ in _texts(records, columns, notation):
        if notation.is_decided:
            break
    return notation.completed(columns)


def _texts(
    records: Iterable[Record], columns: Columns, notation: "_Notation"
) -> Iterator[tuple[Record, dict[str, str]]]:
    """Yield each record without a fault, with the texts of its ids and addresses; add the record to the notation."""
    read_keys = texts_reader([column for column in columns.fields if column.name in {*ID_FIELDS, "email"}])
    for record in records:
        if not record.fault:
            cells = columns.row(record.cells)
            texts = read_keys(cells)
            if columns.export:
                exported.convert_ids(texts)
            notation.add(texts, [cells, *map(columns.row, record.continued)])
            yield record, texts


def _keys(records: Iterable[Record], columns: Columns, notation: "_Notation") -> Iterator[RowKeys]:
    for record, texts in _texts(records, columns, notation):
        external_id, email = texts.get("externalId"), texts.get("email")
        yield RowKeys(
            record.line,
            hash(external_id) if external_id else None,
            hash(ids.whole_id(external_id)) if external_id else None,
            hash(emails.fold(email)) if email else None,
        )


class _Notation:
    """How the numbers of a file are written."""

    def __init__(self, columns: Columns) -> None:
        self._texts: set[str] = set()
        """Fields with an id that is not a whole number."""
        self._decimals: set[str] = set()
        """Fields with an id such as 12345.0."""
        self._separators: set[str] = set()
        """Decimal separators of the amounts that can have only one."""
        self._amounts = _amounts(columns) if columns.export and not columns.decimal else []
        self._id_fields = columns.names.intersection(ID_FIELDS)

    @property
    def is_decided(self) -> bool:
        """Whether no further record can change the notation."""
        is_ambiguous = len(self._separators) == len(amounts.CERTAIN)
        return self._texts >= self._id_fields and (is_ambiguous or not self._amounts)

    def add(self, texts: dict[str, str], rows: Sequence[Sequence[str]]) -> None:
        """Add the texts and the cells of a record."""
        for name in ID_FIELDS:
            if name in texts and name not in self._texts:
                match = ids.WHOLE_ID.fullmatch(texts[name])
                if not match:
                    self._texts.add(name)
                elif match[2]:
                    self._decimals.add(name)
        if len(self._separators) < len(amounts.CERTAIN):
            texts_of_amounts = (column.text(row) for column in self._amounts for row in rows)
            self._separators.update(filter(None, map(amounts.decimal_separator, texts_of_amounts)))

    def completed(self, columns: Columns) -> Columns:
        """Return the columns with the notation of the file."""
        decimal = columns.decimal
        if len(self._separators) == 1:
            (decimal,) = self._separators
        return msgspec.structs.replace(columns, decimal=decimal, decimal_ids=self._decimals - self._texts)


def _amounts(columns: Columns) -> list[Column]:
    return [
        *(column for column in columns.fields if column.name in exported.AMOUNTS),
        *(column for column in columns.metadata if column.kind == "number"),
        *((columns.items.price,) if columns.items else ()),
    ]
