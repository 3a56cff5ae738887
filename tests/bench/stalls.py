"""How long a single request keeps the event loop of an API process, and how much memory large requests take.

A stall is measured as processor time, so that other load on the machine hardly matters: the longest time of the loop
between two runs of a task that runs every millisecond.
"""

import asyncio
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import NamedTuple

import httpx
import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send

import api.app
from api.server.__main__ import serve
from infra.ids import new_ids
from tests.bench import memory
from tests.bench.bench import Bench
from tests.service import NO_LIMITS, Account, Service, new_account, new_database

TURNS = 3
BEAT_SECONDS = 0.001
PATH = "/stalls"
LIMIT_MILLISECONDS = 50
BODY_BYTES = 10 * 1024 * 1024
BATCH = 500
TOGETHER = 8
encode = msgspec.json.encode


class Stalls:
    """The longest stall of the event loop since the last report."""

    def __init__(self) -> None:
        self._longest, self._task = 0.0, None

    async def watch(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            now = time.thread_time()
            self._longest, last = max(self._longest, now - last), now

    def report(self) -> bytes:
        longest, self._longest = self._longest, 0.0
        return str(longest * 1000).encode()


def create_app() -> ASGIApp:
    """Create the application, with a path that reports the longest stall, in milliseconds, and forgets it."""
    app, stalls, tasks = api.app.create_app(), Stalls(), set[asyncio.Task[None]]()

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        if not tasks:
            tasks.add(asyncio.create_task(stalls.watch()))
        if scope.get("path") == PATH:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": stalls.report(), "more_body": False})
        else:
            await app(scope, receive, send)

    return watched


class WatchedService(Service):
    """A service whose API process reports its stalls."""

    COMMANDS = Service.COMMANDS | {"api": ["tests.bench.stalls"]}


class Request(NamedTuple):
    about: str
    method: str
    path: str
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


class Result(NamedTuple):
    about: str
    size: int
    status: int
    milliseconds: float
    stall: float
    peak: float

    def row(self) -> list[str]:
        figures = (f"{self.size / 1e6:.1f}", f"{self.milliseconds:.0f}", f"{self.stall:.0f}", f"{self.peak:.0f}")
        return [self.about, str(self.status), *figures]


def measure(bench: Bench) -> None:
    with ExitStack() as stack:
        database = stack.enter_context(new_database(bench.servers))
        folder = bench.folder / "stalls"
        folder.mkdir()
        service = WatchedService(database, folder)
        stack.callback(service.close)
        service.start("api")
        accounts = [stack.enter_context(new_account(service, limits=NO_LIMITS)) for _ in range(TOGETHER // 2)]
        for account in accounts:
            account.live.post("/consumers", json={}).raise_for_status()
        results = [_measured(service, accounts[0].live, request) for request in requests(accounts[0])]
        bench.report.table(
            ["request", "status", "MB", "ms", "longest stall, ms of processor", "memory of the process, MB"],
            [result.row() for result in results],
        )
        worst = max(result.stall for result in results)
        bench.report.say(f"The longest stall is {worst:.0f} ms; the limit is {LIMIT_MILLISECONDS} ms.")
        bench.report.say(f"{TOGETHER} largest batches at once: {_together(service, accounts):.0f} MB.")


def requests(account: Account) -> Iterator[Request]:
    """Yield requests that are large, or expensive to check, up to the limits of their routes."""
    ids = [row["id"] for row in account.live.post("/consumers/batch", json=[{}] * BATCH).json()]
    audience = account.live.post("/audiences", json={"name": "A", "type": "STATIC"}).json()["id"]
    members = f"/audiences/{audience}/members"
    zipped = {"Accept-Encoding": "gzip"}
    for about, items in batches().items():
        yield Request(about, "POST", "/consumers/batch", items)
    yield Request(
        "500 orders of 200 bad lines", "POST", "/orders/batch", encode([{"amount": 1, "items": [{}] * 200}] * BATCH)
    )
    line = {"productId": "p" * 30, "quantity": 1, "unitAmount": "1.25"}
    order = {"consumerId": ids[0], "amount": 1, "items": [line] * 200}
    yield Request("500 orders of 200 lines", "POST", "/orders/batch", encode([order] * BATCH), zipped)
    long_line = line | {"productId": "p" * 255, "variantId": "v" * 255}
    longest = order | {"items": [long_line] * 200, "metadata": _metadata(0)}
    account.live.post("/orders/batch", json=[longest] * 50).raise_for_status()
    yield Request("50 orders of 200 long lines", "GET", f"/consumers/{ids[0]}?include=orders", b"", zipped)
    yield Request("10,000 ids in 10 MB", "POST", members, encode({"consumerIds": ["x" * 1000] * 10_000}))
    yield Request("10,000 ids", "POST", members, encode({"consumerIds": new_ids("cons_", 10_000)}))
    some = account.live.post("/audiences", json={"name": "B", "type": "SYNCED_LIST"}).json()["id"]
    stored = [row["id"] for _ in range(20) for row in account.live.post("/consumers/batch", json=[{}] * BATCH).json()]
    replaced = encode({"consumerIds": stored})
    yield Request("10,000 members replaced", "PUT", f"/audiences/{some}/members", replaced)
    yield Request("3,000,000 ids", "POST", members, encode({"consumerIds": [""] * 3_000_000}))
    large = encode([{"id": each, "metadata": _metadata(number)} for number, each in enumerate(ids)])
    yield Request("500 × 16 KB of metadata, changed", "PUT", "/consumers/batch", large, zipped)
    nested = encode([{"id": each, "metadata": {"text": None, "a": [[]] * 5_000}} for each in ids])
    yield Request("500 × 5,000 arrays, changed", "PUT", "/consumers/batch", nested)
    patch = b'{"metadata":%b}' % _one_member("1e308", 240_000)
    yield Request("a change of metadata with numbers", "PUT", f"/consumers/{ids[0]}", patch)
    yield Request("a single object of numbers", "POST", "/consumers", _one_member("1.2345678901234567e-300", 240_000))
    yield Request("a single object of arrays", "POST", "/consumers", _one_member("[]", 240_000))


def batches() -> dict[str, bytes]:
    """Return batches of new consumers."""
    keys = {f"k{number}": 1 for number in range(500_000)}
    key = iter(range(10**9))
    return {
        "500,000 keys around a batch": encode(keys | {"consumers": []}),
        "500,000 keys in an item": encode([keys]),
        "800 unknown keys in each item": encode([{f"k{number}": 1 for number in range(800)}] * BATCH),
        "500 × 16 KB of metadata": encode([{"metadata": _metadata(number)} for number in range(BATCH)]),
        "500 × 5,000 arrays in metadata": encode([{"metadata": {"a": [[]] * 5_000}}] * BATCH),
        "arrays in unknown members": _array(_one_member("[]", 20_000), BODY_BYTES),
        "arrays nested 900 deep": _array(b"[" * 900 + b"]" * 900, BODY_BYTES),
        "numbers with exponents": _array(_one_member("1.2345678901234567e-300", 20_000), BODY_BYTES),
        "5,000,000 items": _array(b"0", BODY_BYTES),
        "500 internationalized addresses": encode([{"email": f"a@{_word(next(key))}ü.example"} for _ in range(BATCH)]),
        "the same external id 500 times": encode([{"externalId": "a", "metadata": _metadata(0)}] * BATCH),
    }


def _metadata(number: int) -> dict[str, str]:
    """Return nearly 16 KiB of text that does not compress well."""
    return {"text": _word(number, 15_900)}


def _word(number: int, letters: int = 10) -> str:
    return "".join(Random(number).choices("abcdefghijklmnopqrstuvwxyz", k=letters))


def _one_member(value: str, size: int) -> bytes:
    return b'{"a":%b}' % _array(value.encode(), size)


def _array(item: bytes, size: int) -> bytes:
    return b"[" + b",".join([item] * (size // (len(item) + 1) - 1)) + b"]"


def _measured(service: Service, client: httpx.Client, request: Request) -> Result:
    stalls, times, status = [], [], 0
    _reset_peak(service)
    for _ in range(TURNS):
        httpx.get(f"{service.url}{PATH}")
        started = time.perf_counter()
        headers = {"Content-Type": "application/json", **request.headers}
        status = client.request(request.method, request.path, content=request.body, headers=headers).status_code
        times.append((time.perf_counter() - started) * 1000)
        stalls.append(float(httpx.get(f"{service.url}{PATH}").text))
    return Result(request.about, len(request.body), status, min(times), min(stalls), _peak(service))


def _together(service: Service, accounts: Sequence[Account]) -> float:
    """Send the largest batches at once; return the peak of the memory."""
    clients = [client for account in accounts for client in (account.live, account.test)]
    body = encode([{"metadata": _metadata(number)} for number in range(BATCH)])
    body += b" " * (BODY_BYTES - len(body))
    _reset_peak(service)

    def send(client: httpx.Client) -> int:
        return client.post("/consumers/batch", content=body, headers={"Content-Type": "application/json"}).status_code

    with ThreadPoolExecutor(len(clients)) as pool:
        assert set(pool.map(send, clients)) == {201}
    return _peak(service)


def _processes(service: Service) -> list[Path]:
    return [Path(f"/proc/{pid}") for pid in memory.family(service.pid("api"))]


def _reset_peak(service: Service) -> None:
    for process in _processes(service):
        (process / "clear_refs").write_text("5")


def _peak(service: Service) -> float:
    """Return the peak of the memory of the largest process, in MB."""
    peaks = (re.search(r"VmHWM:\s*(\d+) kB", (process / "status").read_text()) for process in _processes(service))
    return max(int(peak[1]) / 1000 for peak in peaks if peak)


if __name__ == "__main__":
    serve("tests.bench.stalls:create_app")
