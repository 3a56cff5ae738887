"""Exports by the running service: time, snapshot, memory, and the time until writes beside are searchable."""

import json
import re
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psycopg

from tests.bench import memory
from tests.bench.bench import Bench
from tests.bench.freshness import Prober
from tests.bench.shop import Shop, key
from tests.bench.timing import spread, tail
from tests.bench.wire import Connection
from tests.bench.writes import Writer

POLL_SECONDS, PAUSE_SECONDS, IDLE_SECONDS, GIVE_UP_SECONDS = 0.05, 0.03, 8.0, 900.0
REQUESTS: dict[str, dict[str, Any]] = {
    "parquet": {},
    "parquet, with personal data": {"personal": True},
    "csv": {"format": "csv"},
}
KIBIBYTES = 1024


class Made(NamedTuple):
    """An export, and what it took."""

    rows: int
    bytes: int
    seconds: float
    snapshot_seconds: float
    peak_mib: float
    waits: list[float]
    """Milliseconds until writes were searchable meanwhile."""


def measure(bench: Bench) -> None:
    rows = []
    for size in (bench.size // 5, bench.size):
        with (
            bench.shop_of(size) as shop,
            shop.indexing(),
            shop.account() as account,
            Connection(shop.service.url) as api,
            psycopg.connect(shop.address, autocommit=True) as sql,
        ):
            prober = Prober(api, Writer(shop.service.url, key(account), account.live_environment, ()), sql)
            idle = _probed(prober, until=time.monotonic() + IDLE_SECONDS)
            made = {name: _export(shop, request, prober) for name, request in REQUESTS.items()}
        rows += [_row(size, name, each, idle) for name, each in made.items()]
    head = ["consumers", "", "rows", "MB", "seconds", "snapshot, s", "peak RSS, MiB"]
    bench.report.table([*head, "write searchable, ms", "p99", "idle"], rows)


def _row(size: int, name: str, made: Made, idle: list[float]) -> list[str]:
    figures = [f"{made.rows:,}", f"{made.bytes / 1e6:.0f}", f"{made.seconds:.1f}", f"{made.snapshot_seconds:.1f}"]
    return [
        *(f"{size:,}", name, *figures, f"{made.peak_mib:.0f}"),
        *(f"{spread(made.waits):.0f}", f"{tail(made.waits):.0f}", f"{spread(idle):.0f}"),
    ]


def _export(shop: Shop, request: dict[str, Any], prober: Prober) -> Made:
    headers = {"Authorization": f"Bearer {shop.large.key}"}
    done, peak = threading.Event(), 0.0
    waits: list[float] = []
    probing = threading.Thread(target=lambda: waits.extend(_probed(prober, done=done)))
    with httpx.Client(base_url=f"{shop.service.url}/api/v1", headers=headers) as client:
        started = time.monotonic()
        path = f"/exports/{client.post('/exports', json=request).raise_for_status().json()['id']}"
        probing.start()
        while (export := client.get(path).json())["state"] in {"queued", "running"}:
            peak = max(peak, _peak_mib(shop))
            assert time.monotonic() < started + GIVE_UP_SECONDS, export
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - started
        done.set()
        probing.join()
        assert export["state"] == "done", export
        client.delete(path).raise_for_status()
    lines = map(json.loads, re.findall(r"^\{.*\"export_copied\".*$", shop.service.log("background"), re.MULTILINE))
    [snapshot] = [line["seconds"] for line in lines if line["export"] == export["id"]]
    rows = sum(sums["rows"] for sums in export["sums"].values())
    return Made(rows, sum(file["bytes"] for file in export["files"]), seconds, snapshot, peak, waits)


def _probed(prober: Prober, *, until: float = float("inf"), done: threading.Event | None = None) -> list[float]:
    times = []
    while time.monotonic() < until and not (done and done.is_set()):
        times.append(prober.waited())
        time.sleep(PAUSE_SECONDS)
    return times


def _peak_mib(shop: Shop) -> float:
    """Return the peak of the resident memory of the export's process; 0 if there is none."""
    for pid in memory.family(shop.service.pid("background")):
        try:
            if b"indexer.exports.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
                return int(peak) / KIBIBYTES
        except (FileNotFoundError, ProcessLookupError, ValueError):
            pass
    return 0.0
