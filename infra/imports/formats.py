"""How to read a file: the options of the command, and what the file itself shows."""

from collections.abc import Mapping, Sequence

import msgspec

from infra.imports import columns, values
from infra.imports.columns import Columns
from infra.imports.kinds import Kind
from infra.imports.sources import ImportFailed


class Format(msgspec.Struct, frozen=True):
    """How to read a file. A value of None means: as the file shows."""

    mapping: Mapping[str, str] = {}
    """Options of `columns.parse_mapping`."""
    system: str | None = None
    """The source of the file, such as shopify."""
    delimiter: str | None = None
    encoding: str | None = None
    timezone: str | None = None
    """Name of the time zone of times without an offset."""
    decimal: str | None = None
    """Decimal separator of amounts."""


AS_SHOWN = Format()


def assign_columns(header: Sequence[str], kind: Kind, form: Format) -> Columns:
    """Assign the columns: as the named system, by the fields' own names, or as a system recognized by the header.

    Raises:
        ImportFailed: names each wrong column; or an option is invalid for the file.
    """
    known = list(kind.rules.columns)
    try:
        zone = form.timezone and values.time_zone(form.timezone).key
    except ValueError as error:
        raise ImportFailed(str(error)) from None
    export = columns.recognized(header, kind.name, form.system) if form.system else None
    try:
        assigned = columns.assign(header, known, form.mapping, export=export, zone=zone, decimal=form.decimal)
    except ImportFailed:
        export = None if form.system else columns.recognized(header, kind.name)
        if export is None:
            raise
        assigned = columns.assign(header, known, form.mapping, export=export, zone=zone, decimal=form.decimal)
    if export and export.local_times and not zone and "placedAt" in assigned.names:
        raise ImportFailed(
            f"The times in a {export.name} have no time zone: name the zone that is set in {export.system} by "
            "--timezone, such as --timezone Europe/London"
        )
    return assigned
