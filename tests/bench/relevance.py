"""Search quality among 100,000 consumers, compared with PostgreSQL's `pg_trgm` on the same rows, on separate servers.

`python -m tests.bench.relevance` prints two Markdown tables, and takes some minutes. The baseline has one text per
consumer with all searchable values, unaccented and in lower case, and a GIN index of trigrams. Both usual queries are
measured: every word contained in the text (LIKE), and similarity to a part of the text (word similarity).
"""
# ruff: noqa: T201 (prints tables)

import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psycopg
import sqlalchemy as sa

from infra.index.documents import phone_digits
from infra.local.sample.consumers import Consumer
from infra.local.servers import KEEPING, LocalServers
from tests.bench.name_forms import name_forms
from tests.relevance.bulk_load import load
from tests.relevance.generated_consumers import generated_consumers
from tests.relevance.golden import Case, cases, golden_consumers
from tests.relevance.search_requests import first_ids
from tests.service import Service, new_account, new_database

KINDS = ("whole", "name", "address", "phone", "typo")
FORM_KINDS = ("joined", "spelled", "given")
"""Kinds of `name_forms.py`."""
SIZE = 10
PHONE = re.compile(r"[0-9 +\-–.()/x#]+")

# With locale C, trigrams would ignore letters outside ASCII.
DATABASE = "CREATE DATABASE trigrams TEMPLATE template0 ENCODING 'UTF8' LC_CTYPE 'C.UTF-8'"
TABLE = """
    CREATE EXTENSION pg_trgm;
    CREATE EXTENSION unaccent;
    CREATE TABLE raw (id text, text text)"""
COPY = "COPY raw FROM STDIN"
INDEX = """
    CREATE TABLE people AS SELECT id, unaccent(lower(text)) AS text FROM raw;
    CREATE INDEX ON people USING gin (text gin_trgm_ops);
    ANALYZE people"""
WORD = "text LIKE '%%' || unaccent(lower(%s)) || '%%'"
EVERY_WORD = "SELECT id FROM people WHERE {} ORDER BY word_similarity(unaccent(lower(%s)), text) DESC, id DESC LIMIT %s"
SIMILAR = """
    SELECT id FROM people WHERE unaccent(lower(%s)) <%% text
    ORDER BY word_similarity(unaccent(lower(%s)), text) DESC, id DESC LIMIT %s"""

Connection = psycopg.Connection[tuple[str]]
Search = Callable[[str], list[str]]


class Figures(NamedTuple):
    recall: float
    """Share of the expected consumers among the first ten hits."""
    mrr: float
    """Mean reciprocal rank, 0 from rank 11 on."""
    median: float
    """Median time in milliseconds."""

    def __str__(self) -> str:
        return f"{self.recall:.1%} | {self.mrr:.3f} | {self.median:.1f}"


def measure(search: Search, queries: Sequence[Case]) -> Figures:
    ranks, times = [], []
    for case in queries:
        started = time.perf_counter()
        ids = search(case.text)
        times.append((time.perf_counter() - started) * 1000)
        ranks.append(ids.index(case.expected.id) + 1 if case.expected.id in ids else 0)
    values = [1 / rank if rank else 0.0 for rank in ranks]
    return Figures(sum(map(bool, ranks)) / len(ranks), statistics.mean(values), statistics.median(times))


def search_text(person: Consumer) -> str:
    """Return all searchable values of a consumer as a text."""
    parts = [person.full_name, person.email, *(phone_digits(person.phone) if person.phone else ()), person.external_id]
    return " ".join(part for part in parts if part)


def fill(connection: psycopg.Connection[tuple[str]], people: Sequence[Consumer]) -> None:
    connection.execute(TABLE)
    with connection.cursor() as cursor, cursor.copy(COPY) as copy:
        for person in people:
            copy.write_row((person.id, search_text(person)))
    connection.execute(INDEX)


def every_word(connection: Connection, text: str) -> list[str]:
    """Find texts that contain every word."""
    words = [re.sub(r"([\\%_])", r"\\\1", word) for word in as_stored(text).split()]
    query = EVERY_WORD.format(" AND ".join([WORD] * len(words)))
    return [row[0] for row in connection.execute(query.encode(), [*words, as_stored(text), SIZE])]


def similar(connection: Connection, text: str) -> list[str]:
    """Find texts with a similar part."""
    return [row[0] for row in connection.execute(SIMILAR, [as_stored(text), as_stored(text), SIZE])]


def as_stored(text: str) -> str:
    """Reduce a phone number to its digits, as stored in the text."""
    return "".join(filter(str.isdigit, text)).removeprefix("00") if PHONE.fullmatch(text) else text


def report(searches: dict[str, Search]) -> None:
    print(f"| | | {' | '.join(f'{name} | | ' for name in searches)} |")
    print("|---|---|" + "---|---|---|" * len(searches))
    print("| queries | number |" + " recall@10 | MRR | median, ms |" * len(searches))
    forms = list(name_forms())
    for kind in (*KINDS, *FORM_KINDS):
        queries = cases(kind) if kind in KINDS else [case for of_kind, case in forms if of_kind == kind]
        figures = " | ".join(str(measure(search, queries)) for search in searches.values())
        print(f"| {kind} | {len(queries)} | {figures} |", flush=True)
    print("\n| must not be found | number |", " | ".join(searches), "|")
    print("|---|---|" + "---|" * len(searches))
    wrong = [sum(case.expected.id in search(case.text) for case in cases("not")) for search in searches.values()]
    print(f"| found among the first ten | {len(cases('not'))} | {' | '.join(map(str, wrong))} |")


def main() -> None:
    people = [*golden_consumers(), *generated_consumers(golden_consumers())]
    people += [case.expected for _, case in name_forms()]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = stack.enter_context(LocalServers(folder, KEEPING))
        database = stack.enter_context(new_database(servers))
        service = Service(database, folder)
        stack.callback(service.close)
        service.start("api")
        account = stack.enter_context(new_account(service))
        load(database, account.live_environment, people)

        address = sa.make_url(servers.addresses["database_url"])
        with psycopg.connect(address.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(DATABASE)
        own = address.set(database="trigrams").render_as_string(hide_password=False)
        trigrams = stack.enter_context(psycopg.connect(own, autocommit=True))
        fill(trigrams, people)

        print(f"{len(people)} consumers, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start\n")
        report(
            {
                "ours, over HTTP": lambda text: first_ids(account.live, "q", text, SIZE),
                "pg_trgm, every word": lambda text: every_word(trigrams, text),
                "pg_trgm, similar": lambda text: similar(trigrams, text),
            }
        )
        print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
