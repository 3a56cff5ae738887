"""Map the columns of the file to fields."""

import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import NamedTuple

import msgspec

from infra import fields
from infra.imports import values
from infra.imports.exports import EXPORTS, Export
from infra.imports.sources import ImportFailed

METADATA = "metadata."
# Leading columns of an errors file; the importer ignores them, so that the corrected file can be imported as it is.
ERROR_COLUMNS = ("errorLine", "errorReasons")
# Spreadsheets show a cell as text after an apostrophe, and some exports protect numbers and formulas with it.
APOSTROPHE = re.compile(r"'(?=[0-9+=@-])")
# Spreadsheets read the first as text; the second is a null in files of MySQL and PostgreSQL.
TEXT_FORMULA, NULL = re.compile(r'="([^"]*)"'), "\\N"
MARKS = frozenset("'=\\")


class Column(msgspec.Struct, frozen=True):
    """A field or a metadata key, and the cells that hold its value."""

    name: str
    """Field, or key of the metadata."""
    cells: tuple[tuple[int, ...], ...]
    """Positions: the texts of a group are joined by a space, and the first non-empty group counts."""
    kind: str = ""
    """Type of a metadata value."""

    @property
    def single(self) -> int | None:
        """The position, if the value is in a single cell."""
        return self.cells[0][0] if len(self.cells) == len(self.cells[0]) == 1 else None

    def text(self, cells: Sequence[str]) -> str:
        """Return the trimmed text of a row; empty if all cells are."""
        for group in self.cells:
            texts = [text for index in group if (text := fields.trimmed(cells[index]))]
            if texts:
                return " ".join(texts)
        return ""


def texts_reader(columns: Sequence[Column], *, trim: bool = True) -> Callable[[Sequence[str]], dict[str, str]]:
    """Return a function that returns the texts of a row by name, without empty texts.

    Most columns are a single cell; a separate loop for single cells halves the time. Without `trim`, the text of a
    single cell keeps its white space.
    """
    singles = [(column.single, column.name) for column in columns if column.single is not None]
    others = [column for column in columns if column.single is None]

    def read(cells: Sequence[str]) -> dict[str, str]:
        texts = {}
        for index, name in singles:
            if text := cells[index].strip(fields.ENDS):
                texts[name] = text if trim else cells[index]
        for column in others:
            if text := column.text(cells):
                texts[column.name] = text
        return texts

    return read


class ItemColumns(NamedTuple):
    product: Column
    quantity: Column
    price: Column


class Columns(msgspec.Struct, frozen=True):
    """Fields and metadata keys with their positions in the file."""

    fields: list[Column]
    metadata: list[Column]
    export: Export | None = None
    items: ItemColumns | None = None
    cancelled_at: Column | None = None
    base_currency: Column | None = None
    zone: str | None = None
    """Name of the time zone of times without an offset."""
    decimal: str | None = None
    """Decimal separator of amounts, if known."""
    decimal_ids: AbstractSet[str] = frozenset()
    """Fields with ids such as 12345.0, which is the id 12345."""
    ignored: Sequence[str] = ()
    """Headers of an export that are not imported."""

    @property
    def names(self) -> set[str]:
        return {column.name for column in self.fields}

    def row(self, cells: list[str]) -> list[str]:
        r"""Return the cells without marks: `="012"` is 012, `\N` is empty, and in an export `'012` is 012."""
        return [self._without_mark(cell) if cell[:1] in MARKS else cell for cell in cells]

    def _without_mark(self, cell: str) -> str:
        if cell == NULL:
            return ""
        if match := TEXT_FORMULA.fullmatch(cell):
            return match[1]
        return APOSTROPHE.sub("", cell, 1) if self.export else cell

    @property
    def continued_by(self) -> Callable[[Sequence[str]], str] | None:
        """The function that returns the text of a row by which the rows of an order are joined."""
        keys = [column.text for column in self.fields if column.name == "externalId"]
        return keys[0] if keys and self.items else None


class _Header:
    """The headers of a file by name."""

    def __init__(self, header: Sequence[str], *, ignore_case: bool) -> None:
        self._fold: Callable[[str], str] = str.casefold if ignore_case else str
        self.names = [fields.trimmed(name) for name in header]
        self._positions: dict[str, int] = {}
        for index, name in enumerate(self.names):
            self._positions.setdefault(self._fold(name), index)

    def position(self, name: str) -> int | None:
        return self._positions.get(self._fold(_unquoted(name)))

    def cells(self, expression: str) -> tuple[tuple[int, ...], ...]:
        """Return the positions of `A + B | C`, without the headers that the file lacks."""
        if not expression:
            return ()
        if (whole := self.position(expression)) is not None:
            return ((whole,),)
        groups = (map(self.position, group.split("+")) for group in expression.split("|"))
        known = (tuple(index for index in group if index is not None) for group in groups)
        return tuple(group for group in known if group)

    def missing(self, expression: str) -> list[str]:
        """Return the headers of `A + B | C` that the file lacks."""
        if self.position(expression) is not None:
            return []
        return [_unquoted(name) for name in re.split("[+|]", expression) if self.position(name) is None]


def _unquoted(name: str) -> str:
    return name.strip().removeprefix('"').removesuffix('"')


class _Assignment:
    """Columns by name while they are assigned, and the faults of the assignment."""

    def __init__(self, known: Sequence[str]) -> None:
        self.known = known
        self.columns: dict[str, Column] = {}
        self.used: set[int] = set()
        self.faults: list[str] = []

    def is_name(self, name: str) -> bool:
        return name in self.known or self._metadata(name) is not None

    def add(self, name: str, cells: tuple[tuple[int, ...], ...]) -> None:
        """Assign cells to a field or to `metadata.KEY:TYPE`."""
        key, kind = self._metadata(name) or (name, "")
        full = name if name in self.known else METADATA + key
        if full in self.columns:
            self.faults.append(f"duplicate column {full!r}")
        self.columns[full] = Column(key, cells, kind)
        self.used.update(chain.from_iterable(cells))

    def has(self, name: str) -> bool:
        key = self._metadata(name)
        return (name if key is None else METADATA + key[0]) in self.columns

    def _metadata(self, name: str) -> tuple[str, str] | None:
        """Return the key and the type of `metadata.KEY:TYPE`."""
        key = name.removeprefix(METADATA)
        before, _, kind = key.rpartition(":")
        if not before or kind not in values.TYPES:
            before, kind = key, ""
        return (
            (before, kind)
            if key != name and 0 < len(before) <= fields.METADATA_KEY_LENGTH and "\0" not in key
            else None
        )


def parse_mapping(options: Sequence[str]) -> dict[str, str]:
    """Read `HEADER=FIELD` and `FIELD=HEADER+HEADER` options; an empty field means the column is ignored.

    Raises:
        ImportFailed: an option lacks `=`.
    """
    mapping = {}
    for option in options:
        left, separator, right = option.rpartition("=")
        if not separator:
            raise ImportFailed(
                "--column takes HEADER=FIELD, FIELD=HEADER+HEADER to join columns, or HEADER= to ignore a column, "
                f"not {option!r}"
            )
        mapping[left.strip()] = right.strip()
    return mapping


def assign(
    header: Sequence[str],
    known: Sequence[str],
    mapping: Mapping[str, str],
    *,
    export: Export | None = None,
    zone: str | None = None,
    decimal: str | None = None,
) -> Columns:
    """Assign a field to each column.

    Args:
        header: of the file.
        known: names of the fields.
        mapping: options of `parse_mapping`; each replaces the export's entries for the column and the field.
        export: the export of another system; its further columns are ignored.
        zone: name of the time zone of times without an offset.
        decimal: decimal separator of amounts, if named.

    Raises:
        ImportFailed: names every unknown, duplicate, or mapped but missing column.
    """
    headers = _Header(header, ignore_case=export is not None)
    assignment = _Assignment(known)
    for left, right in mapping.items():
        _assign_option(assignment, headers, left, right)
    if export:
        _assign_export(assignment, headers, export)
    ignored = []
    for index, name in enumerate(headers.names):
        if not name or index in assignment.used or name in ERROR_COLUMNS:
            continue
        if assignment.is_name(name) and not (export and assignment.has(name)):
            assignment.add(name, ((index,),))
        elif export:
            ignored.append(name)
        else:
            assignment.faults.append(f"{name!r} is unknown")
    if assignment.faults:
        raise ImportFailed(
            f"Wrong columns: {'; '.join(assignment.faults)}. Known are {', '.join(known)} and metadata.KEY;"
            ' --column "HEADER=FIELD" maps another header, --column "HEADER=" ignores it, and --from SYSTEM reads an'
            " export of another system"
        )
    found = assignment.columns.items()
    return Columns(
        fields=[column for name, column in found if name in known],
        metadata=[column for name, column in found if name not in known],
        export=export,
        items=_items(headers, export),
        cancelled_at=_column(headers, export.cancelled_at) if export else None,
        base_currency=_column(headers, export.base_currency) if export else None,
        zone=zone or (export.zone if export else None),
        decimal=decimal,
        ignored=ignored,
    )


def recognized(header: Sequence[str], kind: str, system: str | None = None) -> Export | None:
    """Return the export of another system that has the header; None if there is none.

    Args:
        header: of the file.
        kind: kind of rows to import.
        system: name of the system; its export is returned even if columns are missing.

    Raises:
        ImportFailed: the export has rows of another kind, or the system has no export of the kind.
    """
    headers = _Header(header, ignore_case=True)
    of_system = [export for export in EXPORTS if system in (None, export.system)]
    matching = [export for export in of_system if all(map(headers.cells, export.marks))]
    candidates = [export for export in matching if export.kind == kind]
    if matching and not candidates:
        raise ImportFailed(f"The file is a {matching[0].name}: import it by `consumers import {matching[0].kind}`")
    if system and not candidates:
        candidates = [export for export in of_system if export.kind == kind]
        if not candidates:
            raise ImportFailed(f"--from {system} imports no {kind}, because {system} exports none")
    return max(candidates, key=lambda export: sum(map(bool, map(headers.cells, export.fields.values()))), default=None)


def _assign_option(assignment: _Assignment, headers: _Header, left: str, right: str) -> None:
    position = headers.position(left)
    if position is not None and (not right or assignment.is_name(right)):
        assignment.used.add(position)
        if right:
            assignment.add(right, ((position,),))
    elif assignment.is_name(left) and right and (position is None or not headers.missing(right)):
        missing = headers.missing(right)
        assignment.faults += [f"--column names {name!r}, which is not a column of the file" for name in missing]
        assignment.add(left, headers.cells(right))
    elif position is None:
        assignment.faults.append(f"--column names {left!r}, which is not a column of the file")
    else:
        assignment.faults.append(f"{right!r} is unknown")
        assignment.used.add(position)


def _assign_export(assignment: _Assignment, headers: _Header, export: Export) -> None:
    by_user = frozenset(assignment.used)
    for name, expression in export.fields.items():
        groups = (tuple(index for index in group if index not in by_user) for group in headers.cells(expression))
        cells = tuple(group for group in groups if group)
        if cells and not assignment.has(name):
            assignment.add(name, cells)
    for index, header in enumerate(headers.names):
        match = re.fullmatch(export.metadata, header) if export.metadata else None
        name = METADATA + match[1].strip() if match else ""
        if index not in by_user and assignment.is_name(name) and not assignment.has(name):
            assignment.add(name, ((index,),))
    for expression in (*(export.items or ()), export.cancelled_at, export.base_currency):
        assignment.used.update(chain.from_iterable(headers.cells(expression)))


def _column(headers: _Header, expression: str) -> Column | None:
    cells = headers.cells(expression)
    return Column(expression, cells) if cells else None


def _items(headers: _Header, export: Export | None) -> ItemColumns | None:
    if not export or not export.items:
        return None
    return ItemColumns(*(Column(expression, headers.cells(expression)) for expression in export.items))
