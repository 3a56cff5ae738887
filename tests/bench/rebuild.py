"""Speed of a rebuild, compared with a bare `_bulk` of the same documents by as many senders, in alternation."""

import pickle
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from indexer.drain.bulk import Document, write
from indexer.rebuild import fill
from indexer.rebuild.builder import ROWS
from infra.index import documents, indices, naming
from infra.index.client import open_writer
from infra.settings import Settings
from tests.bench.bench import Bench
from tests.bench.indexing import build
from tests.bench.report import progress
from tests.bench.shop import Shop
from tests.bench.timing import spread

SENDERS = (1, 2)
TURNS, TURNS_OF_LARGE, LARGE = 2, 1, 500_000


def measure(bench: Bench) -> None:
    shop = bench.shop
    file = bench.folder / "documents"
    render(shop, file)
    turns = TURNS if shop.consumers < LARGE else TURNS_OF_LARGE
    bulk: dict[int, list[float]] = {number: [] for number in SENDERS}
    filling: dict[int, list[float]] = {number: [] for number in SENDERS}
    verifying: dict[int, list[float]] = {number: [] for number in SENDERS}
    for turn in range(turns):
        for number in SENDERS:
            progress(f"turn {turn + 1}, {number} processes")
            bulk[number].append(shop.consumers / bare(shop, file, number))
            built = build(shop.database.engine, shop.database.settings, number)
            filling[number].append(shop.consumers / built.filling)
            verifying[number].append(shop.consumers / built.verifying)
    file.unlink()
    rows = []
    for number in SENDERS:
        spreads = [spread(each[number]) for each in (bulk, filling, verifying)]
        share = f"{spreads[1].median / spreads[0].median:.0%}"
        rows.append([str(number), f"{spreads[0]:,.0f}", f"{spreads[1]:,.0f}", share, f"{spreads[2]:,.0f}"])
    bench.report.say(f"{shop.consumers:,} documents; documents per second: median (min–max) of {turns}.")
    head = ["processes", "`_bulk` alone", "rebuild, filling", "share of `_bulk`", "verification"]
    bench.report.table(head, rows)


def render(shop: Shop, file: Path) -> None:
    """Write the documents into a file, page by page."""
    with file.open("wb") as target:
        for page in pages(shop):
            pickle.dump(page, target, pickle.HIGHEST_PROTOCOL)


def pages(shop: Shop) -> Iterator[list[Document]]:
    values: dict[str, object] = {"position": "", "until_id": None, "rows": ROWS}
    with shop.database.engine.connect() as connection:
        while rows := connection.execute(fill.PAGE, values).all():
            parsed = [(documents.ConsumerRow._make(row[:-1]), row[-1]) for row in rows]
            yield [
                Document(row.environment_id, row.id, row.version, documents.document(row, audiences))
                for row, audiences in parsed
            ]
            values["position"] = rows[-1].id


def bare(shop: Shop, file: Path, senders: int) -> float:
    """Return the seconds that processes take to only send the documents, each a share."""
    settings = shop.database.settings
    name = f"{settings.index_prefix}-0bare"
    indices.create(shop.database.search, name)
    context = get_context("spawn")
    go = context.Barrier(senders + 1)
    processes = [context.Process(target=_send, args=(settings, name, file, senders, n, go)) for n in range(senders)]
    for process in processes:
        process.start()
    go.wait(60)
    started = time.perf_counter()
    for process in processes:
        process.join()
    taken = time.perf_counter() - started
    indices.delete(shop.database.search, name)
    assert not any(process.exitcode for process in processes)
    return taken


def _send(settings: Settings, name: str, file: Path, senders: int, number: int, go: object) -> None:
    client = open_writer(settings)
    send = partial(write, client, naming.write_alias(name))
    go.wait(60)  # type: ignore[attr-defined]  # the class of a spawned barrier has no public name
    with file.open("rb") as source:
        number_of_page = 0
        while source.peek(1):
            page: list[Document] = pickle.load(source)
            if number_of_page % senders == number:
                assert all(item.is_indexed for item in send(page))
            number_of_page += 1
    client.close()
