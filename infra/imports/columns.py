"""Map the columns of the file to fields."""

from collections.abc import Mapping, Sequence

import msgspec

from infra.fields import METADATA_KEY_LENGTH
from infra.imports.rows import ImportFailed

METADATA = "metadata."
# Leading columns of an errors file; the importer ignores them, so that the corrected file can be imported as it is.
ERROR_COLUMNS = ("errorLine", "errorReasons")


class Columns(msgspec.Struct, frozen=True):
    """Fields and metadata keys by position in the file; ignored columns are in neither list."""

    fields: list[tuple[int, str]]
    metadata: list[tuple[int, str]]

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.fields}


def parse_mapping(options: Sequence[str]) -> dict[str, str]:
    """Read `HEADER=FIELD` options; an empty field means the column is ignored.

    Raises:
        ImportFailed: an option lacks `=`.
    """
    mapping = {}
    for option in options:
        header, separator, name = option.rpartition("=")
        if not separator:
            raise ImportFailed(f"--column takes HEADER=FIELD, or HEADER= to ignore a column, not {option!r}")
        mapping[header.strip()] = name.strip()
    return mapping


def assign(header: Sequence[str], known: Sequence[str], mapping: Mapping[str, str]) -> Columns:
    """Assign a field to each column.

    Raises:
        ImportFailed: names every column that is unknown, duplicate, or mapped but missing.
    """
    headers = [name.strip() for name in header]
    faults = [f"--column names {name!r}, which is not a column of the file" for name in mapping if name not in headers]
    fields: list[tuple[int, str]] = []
    metadata: list[tuple[int, str]] = []
    seen: set[str] = set()
    for index, column in enumerate(headers):
        name = mapping.get(column, "" if column in ERROR_COLUMNS else column)
        if not name and (column in mapping or column in ERROR_COLUMNS):
            continue
        if name in seen:
            faults.append(f"duplicate column {name!r}")
        elif name in known:
            fields.append((index, name))
        elif 0 < len(key := name.removeprefix(METADATA)) <= METADATA_KEY_LENGTH and key != name and "\0" not in key:
            metadata.append((index, key))
        else:
            faults.append(f"{name!r} is unknown")
        seen.add(name)
    if faults:
        raise ImportFailed(
            f"Wrong columns: {'; '.join(faults)}. Known are {', '.join(known)} and metadata.KEY;"
            ' --column "HEADER=FIELD" maps another header, --column "HEADER=" ignores it'
        )
    return Columns(fields, metadata)
