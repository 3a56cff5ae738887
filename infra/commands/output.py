"""How commands answer: JSON for programs, lines and tables for people."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.documents import time

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


ENDLESS = 100_000


def say_json(answer: msgspec.Struct | Iterable[msgspec.Struct]) -> None:
    """Print it as one line of JSON, with names and times as the API writes them."""
    plain = msgspec.to_builtins(answer, builtin_types=(datetime,))
    typer.echo(json.dumps(plain, ensure_ascii=False, default=time))


def say_table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table; its values are never cut off or wrapped, for ids are there to be copied."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row))
    Console(highlight=False, width=ENDLESS).print(table)


def _cell(value: object) -> str:
    match value:
        case None:
            return "–"
        case datetime():
            return time(value)
        case list():
            return ",".join(value)
        case _:
            return str(value)
